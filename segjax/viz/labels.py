"""Pictures of label maps, by themselves and as overlays."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from segjax.data.source import Classes
from segjax.numerics import broadcast_where
from segjax.typing import Array
from segjax.viz.pictures import as_rgb
from segjax.viz.regions import find_spots
from segjax.viz.text import write_names

Colors = UInt8[np.ndarray, "classes 3"] | Sequence[tuple[int, int, int]]

VOID = (190, 190, 190)
_NAMES = 3  # regions of a class that are named
_NAMED_SHARE = 0.004  # least share of the picture that a named region has


def colorize(
    labels: Integer[Array, "*b h w"], colors: Colors, *, where: Bool[Array, "*b h w"] | None = None
) -> UInt8[np.ndarray, "*b h w 3"]:
    """Colours a label map: `colors[labels]`, and black where void.

    Args:
      labels: class ids `[*b, h, w]`.
      colors: RGB in 0..255 for each class.
      where: `[*b, h, w]`, False for void.

    Returns:
      RGB uint8 `[*b, h, w, 3]`.

    Raises:
      ValueError: if a label that is not void has no colour.

    Example:
      >>> import numpy as np
      >>> from segjax import viz
      >>> viz.colorize(np.array([[0, 1]]), ((230, 159, 0), (86, 180, 233)))
      array([[[230, 159,   0],
              [ 86, 180, 233]]], dtype=uint8)
    """
    table, labels = np.asarray(colors, np.uint8), np.asarray(labels)
    valid = np.asarray(broadcast_where(where, labels.shape))
    strangers = labels[valid & ((labels < 0) | (labels >= len(table)))]
    if strangers.size:
        raise ValueError(f"labels: expected 0 to {len(table) - 1}, got {strangers[0]}")
    return np.where(valid[..., None], table[np.where(valid, labels, 0)], np.uint8(0))


def overlay(
    image: UInt8[Array, "*b h w c"] | Float[Array, "*b h w c"],
    labels: Integer[Array, "*b h w"],
    colors: Colors,
    *,
    alpha: float = 0.5,
    where: Bool[Array, "*b h w"] | None = None,
) -> UInt8[np.ndarray, "*b h w 3"]:
    """Overlays a label map on a picture: `(1 - alpha) image + alpha colors[labels]`.

    Args:
      image: `[*b, h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      labels: class ids `[*b, h, w]`.
      colors: RGB in 0..255 for each class.
      alpha: opacity of the colours, in 0..1.
      where: `[*b, h, w]`, False for void, where the picture stays as it is.

    Returns:
      RGB uint8 `[*b, h, w, 3]`.

    Raises:
      ValueError: if `image` and `labels` differ in size, `image` is neither grey nor RGB, or a
        label has no colour.

    Example:
      >>> import numpy as np
      >>> from segjax import viz
      >>> colors = (230, 159, 0), (86, 180, 233)
      >>> viz.overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), colors)
      array([[[115,  80,   0],
              [ 43,  90, 116]]], dtype=uint8)
    """
    picture, labels = as_rgb(image), np.asarray(labels)
    if labels.shape != picture.shape[:-1]:
        raise ValueError(f"labels: expected shape {picture.shape[:-1]}, got {labels.shape}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a share in 0..1, got {alpha}")
    tinted = np.rint((1 - alpha) * picture + alpha * colorize(labels, colors, where=where))
    valid = np.asarray(broadcast_where(where, labels.shape))
    return np.where(valid[..., None], tinted.astype(np.uint8), picture)


def draw_labels(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    labels: Integer[Array, "h w"],
    classes: Classes,
    *,
    alpha: float = 0.5,
    where: Bool[Array, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Overlays a label map on a picture, with class names in the largest regions.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      labels: class ids `[h, w]`.
      classes: names and colours of the classes.
      alpha: opacity of the colours, in 0..1.
      where: `[h, w]`, False for void, where the picture stays as it is.

    Returns:
      RGB uint8 `[h, w, 3]`.

    Raises:
      ValueError: if `image` and `labels` differ in size, `image` is neither grey nor RGB, or a
        label has no colour.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> classes = data.Classes(("sky",), ((100, 50, 0),))
      >>> viz.draw_labels(np.zeros((1, 1, 3)), np.array([[0]]), classes)  # too small for a name
      array([[[50, 25,  0]]], dtype=uint8)
    """
    picture = overlay(image, labels, classes.colors, alpha=alpha, where=where)
    labels = np.asarray(labels)
    valid = np.asarray(broadcast_where(where, labels.shape))
    least = max(1, _NAMED_SHARE * labels.size)
    large = np.flatnonzero(np.bincount(labels[valid], minlength=1) >= least)
    regions = np.full(labels.shape, -1)
    found: list[tuple[int, str]] = []
    for c in large:
        _, parts, stats, _ = cv2.connectedComponentsWithStats(
            (valid & (labels == c)).view(np.uint8)
        )
        areas = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
        for k in np.argsort(-areas)[:_NAMES]:
            if areas[k] >= least:
                regions[parts == k + 1] = len(found)
                found.append((areas[k], classes.names[c]))
    spots = find_spots(regions)
    order = sorted(range(len(found)), key=lambda k: -found[k][0])
    write_names(picture, [(found[k][1], spots[k]) for k in order])
    return picture
