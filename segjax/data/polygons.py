"""Polygons to masks, pixel for pixel as COCO's own code fills them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from segjax.data.checked import numbers
from segjax.data.errors import DataError

_SCALE = 5  # points per pixel along the outline
_FARTHEST, _LONGEST = 2**16, 2**20  # outlines are followed point by point


def rasterize_polygons(
    polygons: Sequence[Sequence[float | int] | np.ndarray], shape: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """The union of polygons, filled by the even-odd rule on a grid 5 times as fine.

    In each column the outline is followed at one of its 5 lines, where every crossing turns the
    pixels from the next one below on: inside becomes outside and the other way round.

    Args:
      polygons: x0, y0, x1, y1, ... of each in pixels, at least 3 points; they may extend beyond the
        picture.
      shape: (h, w) of the mask.

    Returns:
      `[h, w]`, boolean.

    Raises:
      DataError: if a polygon is invalid, as in `check_polygon`.

    Example:
      >>> from segjax import data
      >>> data.rasterize_polygons([[1, 0, 4, 0, 4, 2, 1, 2]], (3, 5)).astype(int)
      array([[0, 1, 1, 1, 0],
             [0, 1, 1, 1, 0],
             [0, 0, 0, 0, 0]])

    References:
      the definition of cocodataset/cocoapi, common/maskApi.c, rleFrPoly.
    """
    mask = np.zeros(shape, bool)
    for polygon in polygons:
        _fill(mask, check_polygon(np.asarray(polygon).tolist()).reshape(-1, 2))
    return mask


def check_polygon(polygon: Any) -> Float64[np.ndarray, " n"]:
    """Checks a polygon from a file.

    Args:
      polygon: a list x0, y0, x1, y1, ... in pixels.

    Returns:
      The numbers.

    Raises:
      DataError: if it is not such a list, has a coordinate beyond ±65,536, or an outline longer
        than 1,048,576 pixels.

    Example:
      >>> from segjax.data.polygons import check_polygon
      >>> check_polygon([1, 0, 4, 0, 4, 2])
      array([1., 0., 4., 0., 4., 2.])
    """
    values = numbers("segmentation", polygon, most=_FARTHEST)
    if len(values) % 2:
        raise DataError(f"segmentation: expected x0, y0, x1, y1 ..., got {len(values)} numbers")
    points = values.reshape(-1, 2)
    outline = np.abs(np.roll(points, -1, axis=0) - points).max(axis=1, initial=0).sum()
    if outline > _LONGEST:
        raise DataError(
            f"segmentation: expected outlines of at most {_LONGEST} pixels, got {outline:.0f}"
        )
    return values


def _fill(mask: np.ndarray, points: np.ndarray) -> None:
    """Adds a polygon to the mask."""
    height, width = mask.shape
    x, y = _outline((_SCALE * points + 0.5).astype(np.int64))
    steps = np.flatnonzero(np.diff(x))  # where the outline enters the next fine column
    column = (np.minimum(x[steps], x[steps + 1]) + 0.5) / _SCALE - 0.5
    row = np.ceil(np.clip((np.minimum(y[steps], y[steps + 1]) + 0.5) / _SCALE - 0.5, 0, height))
    crossing = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    if not crossing.any():
        return
    turns = np.stack([row[crossing], column[crossing]]).astype(np.int64)
    (top, left), (bottom, right) = turns.min(axis=1), turns.max(axis=1)
    box = np.s_[top : bottom + 1, left : right + 1]
    turned = np.zeros((bottom + 1 - top, right + 1 - left), np.uint8)
    np.add.at(turned, tuple(turns - [[top], [left]]), 1)
    inside = np.bitwise_and(np.cumsum(turned, axis=0, dtype=np.uint8), 1).astype(bool)
    mask[box] |= inside[: height - top]


def _outline(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grid points along the closed polygon: of each edge one a step of its longer axis."""
    start, end = points, np.roll(points, -1, axis=0)
    steps = np.abs(end - start).max(axis=1)
    edge = np.repeat(np.arange(len(points)), steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    # Both ways along an edge give the same points: it is walked from its lesser end.
    longer = np.argmax(np.abs(end - start), axis=1)
    row = np.arange(len(points))
    flip = start[row, longer] > end[row, longer]
    low, high = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
    step = np.where(flip[edge], steps[edge] - step, step)
    slope = (high - low) / np.maximum(steps, 1)[:, None]
    walked = (low[edge] + slope[edge] * step[:, None] + 0.5).astype(np.int64)
    # Along the longer axis there is nothing to round (and a cast rounds towards 0, also below it).
    walked[np.arange(len(edge)), longer[edge]] = low[edge, longer[edge]] + step
    return walked[:, 0], walked[:, 1]
