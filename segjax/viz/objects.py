"""Overlays of objects and segments: tinted, outlined and named."""

import itertools
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from segjax.data.palette import palette
from segjax.data.source import Classes
from segjax.typing import Array, Instances, Panoptic
from segjax.viz.pictures import as_rgb, resize_mask, resize_picture
from segjax.viz.regions import Spot, find_spots, region_borders
from segjax.viz.text import write_names

_OBJECTS = tuple(map(tuple, palette(7).tolist()))
_OUTLINE = 0.45  # brightness of an outline relative to its object


def draw_instances(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    instances: Instances,
    classes: Classes,
    *,
    score_threshold: float = 0.5,
    alpha: float = 0.5,
    size: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draws objects on their picture, each in a shade of its class's colour, outlined and named.

    Smaller objects are drawn over larger ones. Without masks, boxes are drawn. If there is a single
    class of things, its objects have different colours and no names.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      instances: the objects; without `scores` all valid ones are drawn.
      classes: names and colours of the classes.
      score_threshold: least score of the objects that are drawn, in 0..1.
      alpha: opacity of the colours, in 0..1.
      size: (height, width) of the result in pixels; None for that of the picture. Names and
        outlines are drawn at this size.

    Returns:
      RGB uint8 `[h, w, 3]`, of that size.

    Raises:
      ValueError: if `image` is neither grey nor RGB, or the masks differ from it in size.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> from segjax.typing import Instances
      >>> mask = np.zeros((1, 4, 4), bool)
      >>> mask[0, 1:3, 1:3] = True
      >>> box, one = np.array([[1.0, 1.0, 3.0, 3.0]], np.float32), np.zeros(1, np.int32)
      >>> objects = Instances(box, one, np.array([True]), masks=mask)
      >>> classes = data.Classes(("car",), ((200, 0, 0),))
      >>> picture = viz.draw_instances(np.zeros((4, 4, 3)), objects, classes)
      >>> picture[0, 0].tolist(), bool(picture[1, 1].any())
      ([0, 0, 0], True)
    """
    picture = as_rgb(image)
    own = picture.shape[:2]
    size = own if size is None else size
    shown = np.flatnonzero(np.asarray(instances.valid))
    if instances.scores is not None:
        shown = shown[np.asarray(instances.scores)[shown] >= score_threshold]
    boxes = np.asarray(instances.boxes) * np.tile(np.divide(size, own)[::-1], 2)
    if instances.masks is None:
        areas = np.prod(boxes[shown, 2:] - boxes[shown, :2], axis=-1)
    else:
        masks = np.asarray(instances.masks)
        _check_size("masks", masks, picture)
        cut = {k: _cut(resize_mask(masks[k], size)) for k in shown}
        areas = np.array([cut[k][0].sum() for k in shown], int)
    picture = resize_picture(picture, size).copy()
    order = shown[np.argsort(-areas, kind="stable")]
    alike = has_one_thing(classes)
    class_ids = np.asarray(instances.classes)[order]
    shades = itertools.cycle(_OBJECTS) if alike else _shades(class_ids, classes)
    names: list[tuple[str, Spot]] = []
    for k, color in zip(order, shades, strict=False):
        if instances.masks is None:
            left, top, right, bottom = np.rint(boxes[k]).astype(int).tolist()
            cv2.rectangle(picture, (left, top), (right, bottom), color, 2)
            middle = (left + right) / 2, (top + bottom) / 2
            spots = [Spot(*middle, depth=(bottom - top) / 2, columns=right - left)]
        else:
            mask, corner = cut[k]
            _paint(picture, mask, corner, color, alpha)
            spots = _spots(mask, corner)
        name = "" if alike else classes.names[instances.classes[k]]
        score = "" if instances.scores is None else f"{100 * instances.scores[k]:.0f}"
        names += [(f"{name} {score}".strip(), spot) for spot in spots]
    write_names(picture, names)  # on top of all objects
    return picture


def draw_panoptic(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    panoptic: Panoptic,
    classes: Classes,
    *,
    alpha: float = 0.6,
    size: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draws panoptic segments on their picture: tinted and named, things also outlined.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      panoptic: the segments; void stays as it is.
      classes: names and colours of the classes, and which are things (by default none).
      alpha: opacity of the colours, in 0..1.
      size: (height, width) of the result in pixels; None for that of the picture. Names and
        outlines are drawn at this size.

    Returns:
      RGB uint8 `[h, w, 3]`, of that size.

    Raises:
      ValueError: if `image` is neither grey nor RGB, or the segments differ from it in size.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> from segjax.typing import Panoptic
      >>> segments = Panoptic(np.array([[0, -1]]), np.array([0], np.int32), np.array([True]))
      >>> viz.draw_panoptic(np.zeros((1, 2, 3)), segments, data.Classes(("sky",), ((100, 50, 0),)))
      array([[[60, 30,  0],
              [ 0,  0,  0]]], dtype=uint8)
    """
    picture, segments = as_rgb(image), np.asarray(panoptic.segments)
    _check_size("segments", segments, picture)
    size = picture.shape[:2] if size is None else size
    picture, segments = resize_picture(picture, size).copy(), resize_mask(segments, size)
    valid = np.append(np.asarray(panoptic.valid), False)  # for void
    segments = np.where(valid[segments], segments, -1)
    areas = np.bincount(segments.ravel() + 1, minlength=len(valid))[1:]
    order = np.lexsort((np.arange(len(areas)), areas))[::-1]
    order = order[areas[order] > 0]
    class_ids = np.asarray(panoptic.classes)[order]
    thing = np.array([bool(classes.things) and classes.things[c] for c in class_ids], bool)
    colors, outlined = np.zeros((len(valid), 3)), np.zeros(len(valid), bool)
    colors[order] = np.array(classes.colors, float)[class_ids]
    colors[order[thing]] = np.reshape([*_shades(class_ids[thing], classes)], (-1, 3))
    outlined[order] = thing
    shown, tint = segments >= 0, colors[segments]
    tinted = np.rint((1 - alpha) * picture + alpha * tint).astype(np.uint8)
    picture = np.where(shown[..., None], tinted, picture)
    outline = outlined[segments] & region_borders(segments)
    picture[outline] = np.rint(_OUTLINE * tint[outline])
    spots = find_spots(segments)
    write_names(
        picture, [(classes.names[c], spots[k]) for k, c in zip(order, class_ids, strict=True)]
    )
    return picture


def _check_size(name: str, array: np.ndarray, picture: np.ndarray) -> None:
    if array.shape[-2:] != picture.shape[:2]:
        raise ValueError(f"{name}: expected shape (…, {picture.shape[:2]}), got {array.shape}")


def _shades(class_ids: np.ndarray, classes: Classes) -> Iterator[tuple[int, int, int]]:
    """A colour for each object: that of its class, in four shades in turn."""
    seen: dict[int, int] = {}
    for c in class_ids.tolist():
        k = seen[c] = seen.get(c, -1) + 1
        red, green, blue = (round((1 - 0.13 * (k % 4)) * part) for part in classes.colors[c])
        yield red, green, blue


def has_one_thing(classes: Classes) -> bool:
    """Whether there is a single class of things, which need no names."""
    return (sum(classes.things) if classes.things else len(classes)) == 1


def _cut(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of a mask around its pixels, and the (top, left) of it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask[:0, :0], (0, 0)
    top, left = int(rows[0]), int(columns[0])
    return mask[top : rows[-1] + 1, left : columns[-1] + 1].copy(), (top, left)


def _paint(
    picture: np.ndarray,
    mask: np.ndarray,
    corner: tuple[int, int],
    color: tuple[int, int, int],
    alpha: float,
) -> None:
    """Tints the mask's pixels in place, and draws its outline darker."""
    (top, left), (height, width) = corner, mask.shape
    part = picture[top : top + height, left : left + width]
    part[mask] = np.rint((1 - alpha) * part[mask] + alpha * np.array(color)).astype(np.uint8)
    part[mask & region_borders(mask)] = [round(_OUTLINE * channel) for channel in color]


def _spots(mask: np.ndarray, corner: tuple[int, int]) -> list[Spot]:
    """The place of the mask's name; none where it has no pixel."""
    found = find_spots(mask.astype(np.int32) - 1).values()
    return [spot._replace(x=spot.x + corner[1], y=spot.y + corner[0]) for spot in found]
