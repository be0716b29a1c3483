"""Borders and name places of the regions of a map, in time linear in its pixels."""

from typing import NamedTuple

import cv2
import numpy as np


class Spot(NamedTuple):
    """A place for a name within a region.

    Attributes:
      x: column of the pixel that is farthest from the region's border.
      y: its row.
      depth: its distance from the nearest pixel outside the region.
      columns: number of columns in which the region has a pixel.
    """

    x: float
    y: float
    depth: float
    columns: float


def region_borders(regions: np.ndarray) -> np.ndarray:
    """The pixels `[h, w]` that have one of another region, or the picture's edge, beside them."""
    inside = np.zeros(regions.shape, bool)
    middle = regions[1:-1, 1:-1]
    inside[1:-1, 1:-1] = (
        (middle == regions[:-2, 1:-1])
        & (middle == regions[2:, 1:-1])
        & (middle == regions[1:-1, :-2])
        & (middle == regions[1:-1, 2:])
    )
    return ~inside


def find_spots(regions: np.ndarray) -> dict[int, Spot]:
    """Finds where a name fits best into each region.

    Args:
      regions: int `[h, w]`, the number of each pixel's region; negative for none.

    Returns:
      By number, the spots of the regions that have a pixel.
    """
    width = regions.shape[1]
    inside = ~region_borders(regions)
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3).ravel() + 1
    pixels = np.flatnonzero(regions.ravel() >= 0)
    numbers, row = np.unique(regions.ravel()[pixels], return_inverse=True)
    depth = depth[pixels]
    deepest = np.zeros(len(numbers), depth.dtype)
    np.maximum.at(deepest, row, depth)
    (hits,) = np.nonzero(depth == deepest[row])
    _, first = np.unique(row[hits], return_index=True)
    ys, xs = np.divmod(pixels[hits[first]], width)
    columns = np.bincount(np.unique(row * width + pixels % width) // width)
    return {
        number: Spot(*place)
        for number, *place in zip(
            numbers.tolist(), xs.tolist(), ys.tolist(), deepest.tolist(), columns.tolist(),
            strict=True,
        )
    }  # fmt: skip
