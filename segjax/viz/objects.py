"""Objects and segments drawn onto their picture: tinted, outlined, and named."""

import colorsys
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from segjax.data.source import Classes
from segjax.typing import Array, Instances, Panoptic
from segjax.viz.pictures import as_rgb

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_OUTLINE = 0.45  # the brightness of an outline beside that of its object


def draw_instances(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    instances: Instances,
    classes: Classes,
    *,
    score_threshold: float = 0.5,
    alpha: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """Objects on their picture, each in a shade of its class's colour, outlined and named.

    The largest come first, so that none is covered; without masks, their boxes are drawn.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      instances: of the picture; objects without `scores` are all drawn.
      classes: their names and colours.
      score_threshold: the least score of what is drawn, in 0..1.
      alpha: how much the colours cover, in 0..1.

    Returns:
      RGB uint8 `[h, w, 3]`.

    Raises:
      ValueError: if the picture is neither grey nor RGB, or the masks are not of its size.

    Example:
      >>> mask = np.zeros((1, 4, 4), bool)
      >>> mask[0, 1:3, 1:3] = True
      >>> box, one = np.array([[1.0, 1.0, 3.0, 3.0]], np.float32), np.zeros(1, np.int32)
      >>> objects = Instances(box, one, np.array([True]), masks=mask)
      >>> picture = draw_instances(np.zeros((4, 4, 3)), objects, Classes(("car",), ((200, 0, 0),)))
      >>> picture[0, 0].tolist(), bool(picture[1, 1].any())
      ([0, 0, 0], True)
    """
    picture = as_rgb(image).copy()
    shown = np.flatnonzero(np.asarray(instances.valid))
    if instances.scores is not None:
        shown = shown[np.asarray(instances.scores)[shown] >= score_threshold]
    boxes = np.asarray(instances.boxes)
    if instances.masks is not None:
        masks = np.asarray(instances.masks)
        _check_size("masks", masks, picture)
        areas = masks[shown].sum((1, 2))
    else:
        masks, areas = None, np.prod(boxes[shown, 2:] - boxes[shown, :2], axis=-1)
    order = shown[np.argsort(-areas, kind="stable")]
    shades = _shades(np.asarray(instances.classes)[order], classes)
    names = []
    for k, color in zip(order, shades, strict=True):
        if masks is None:
            corners = np.rint(boxes[k]).astype(int)
            cv2.rectangle(picture, corners[:2].tolist(), corners[2:].tolist(), color, 2)
        else:
            _paint(picture, masks[k], color, alpha)
        name = classes.names[instances.classes[k]]
        score = "" if instances.scores is None else f" {100 * instances.scores[k]:.0f}"
        names.append((name + score, _box_mask(boxes[k], picture) if masks is None else masks[k]))
    for text, mask in names:  # on top of all objects
        _write(picture, text, mask)
    return picture


def draw_panoptic(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    panoptic: Panoptic,
    classes: Classes,
    *,
    alpha: float = 0.6,
) -> UInt8[np.ndarray, "h w 3"]:
    """Segments on their picture: stuff tinted, things besides in shades, outlined and named.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      panoptic: of the picture; void stays as it is.
      classes: their names and colours, and which are things (without that, none).
      alpha: how much the colours cover, in 0..1.

    Returns:
      RGB uint8 `[h, w, 3]`.

    Raises:
      ValueError: if the picture is neither grey nor RGB, or the segments are not of its size.

    Example:
      >>> segments = Panoptic(np.array([[0, -1]]), np.array([0], np.int32), np.array([True]))
      >>> draw_panoptic(np.zeros((1, 2, 3)), segments, Classes(("sky",), ((100, 50, 0),)))
      array([[[60, 30,  0],
              [ 0,  0,  0]]], dtype=uint8)
    """
    picture, segments = as_rgb(image).copy(), np.asarray(panoptic.segments)
    _check_size("segments", segments, picture)
    numbers, areas = np.unique(segments, return_counts=True)
    valid = np.asarray(panoptic.valid)
    shown = [(a, k) for k, a in zip(numbers, areas, strict=True) if k >= 0 and valid[k]]
    order = np.array([k for _, k in sorted(shown, reverse=True)], int)
    of_class = np.asarray(panoptic.classes)[order]
    thing = np.array([bool(classes.things) and classes.things[c] for c in of_class], bool)
    shades = iter(_shades(of_class[thing], classes))
    names = []
    for k, c, is_thing in zip(order, of_class, thing, strict=True):
        mask = segments == k
        color = next(shades) if is_thing else tuple(classes.colors[c])
        _paint(picture, mask, color, alpha, outline=is_thing)
        names.append((classes.names[c], mask))
    for text, mask in names:
        _write(picture, text, mask)
    return picture


def truth_and_prediction(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    truth: UInt8[np.ndarray, "h w 3"],
    prediction: UInt8[np.ndarray, "h w 3"],
) -> Figure:
    """A picture, and what is true and what is predicted of it, side by side.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      truth: RGB `[h, w, 3]`, as `draw_instances` and `draw_panoptic` give it.
      prediction: likewise.

    Returns:
      A figure of three panels; `.savefig(path)` writes it.

    Example:
      >>> picture = np.zeros((4, 6, 3), np.uint8)
      >>> figure = truth_and_prediction(picture, picture, picture)
      >>> [panel.get_title() for panel in figure.axes]
      ['image', 'truth', 'prediction']
    """
    picture = as_rgb(image)
    size = (13.2, 0.5 + 4.4 * picture.shape[0] / picture.shape[1])
    figure = Figure(size, dpi=150, layout="constrained")
    panels = {"image": picture, "truth": truth, "prediction": prediction}
    for axes, (title, pixels) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.imshow(pixels)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _check_size(name: str, array: np.ndarray, picture: np.ndarray) -> None:
    if array.shape[-2:] != picture.shape[:2]:
        raise ValueError(f"{name} has shape {array.shape}; due is (…, {picture.shape[:2]})")


def _shades(of_class: np.ndarray, classes: Classes) -> Iterator[tuple[int, int, int]]:
    """A colour for each object: its class's, turned and brightened, so that neighbours differ."""
    seen: dict[int, int] = {}
    for c in of_class.tolist():
        k = seen[c] = seen.get(c, -1) + 1
        hue, saturation, value = colorsys.rgb_to_hsv(*np.divide(classes.colors[c], 255))
        hue = (hue + 0.61803 * k) % 1 if len(classes.names) <= 2 else hue + 0.03 * (k % 5 - 2)
        value = min(1.0, max(0.35, value * (1 - 0.12 * (k % 4))))
        red, green, blue = colorsys.hsv_to_rgb(hue % 1, max(saturation, 0.4), value)
        yield round(255 * red), round(255 * green), round(255 * blue)


def _paint(picture, mask, color, alpha, *, outline=True):
    """Tints the mask's pixels in place; its border is darker."""
    tinted = (1 - alpha) * picture[mask] + alpha * np.array(color)
    picture[mask] = np.rint(tinted).astype(np.uint8)
    if outline:
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        dark = tuple(round(_OUTLINE * channel) for channel in color)
        cv2.drawContours(picture, contours, -1, dark, 1)


def _box_mask(box, picture):
    mask = np.zeros(picture.shape[:2], bool)
    left, top, right, bottom = np.rint(np.maximum(box, 0)).astype(int)
    mask[top:bottom, left:right] = True
    return mask


def _write(picture, text, mask):
    """A name around the pixel farthest from the mask's border, if there is room for it."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    _, deepest, _, (x, y) = cv2.minMaxLoc(depth)
    scale = max(0.3, min(picture.shape[:2]) / 900)
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    if height > 2 * deepest or width > np.count_nonzero(mask.any(0)):
        return
    x = min(max(x - width // 2, 1), max(1, picture.shape[1] - width - 1))
    for dx, dy, color in (*((dx, dy, _BLACK) for dx in (-1, 1) for dy in (-1, 1)), (0, 0, _WHITE)):
        place = (x + dx, y + height // 2 + dy)
        cv2.putText(picture, text, place, font, scale, color, 1, cv2.LINE_AA)
