"""Default colours of classes."""

import itertools

import cv2
import numpy as np
from jaxtyping import UInt8

_OKABE_ITO = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
)
# Linear RGB as seen by trichromats, protanopes and deuteranopes.
_VISIONS = np.array(
    [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ]
)


MOST_COLORS = 3449


def palette(num_classes: int) -> UInt8[np.ndarray, "{num_classes} 3"]:
    """Colours that differ from each other, also for red- and green-blind viewers.

    First the seven colours of Okabe and Ito; then, one after the other, the one of a regular grid
    in RGB whose least distance `min_vision ΔE*ab` to all before it is largest. The grid's colours
    of lightness below 30 or above 90 are left out: they would pass for black or white.

    Args:
      num_classes: number of colours, up to 3449.

    Returns:
      RGB uint8 `[num_classes, 3]`; the first ones do not depend on `num_classes`.

    Raises:
      ValueError: if `num_classes` is negative or above 3449.

    Example:
      >>> from segjax.data.palette import palette
      >>> palette(2)
      array([[230, 159,   0],
             [ 86, 180, 233]], dtype=uint8)

    References:
      Okabe and Ito, Color Universal Design, 2008; Machado, Oliveira and Fernandes, A
      Physiologically-based Model for Simulation of Color Vision Deficiency, 2009, table 1.
    """
    if not 0 <= num_classes <= MOST_COLORS:
        raise ValueError(f"num_classes: expected 0 to {MOST_COLORS}, got {num_classes}")
    levels = np.linspace(0, 255, 16)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    seen = _appearances(grid)
    legible = (seen[0, :, 0] >= 30) & (seen[0, :, 0] <= 90)
    grid, seen = grid[legible], seen[:, legible]

    colors = np.array(_OKABE_ITO)
    distance = _color_difference(seen[:, :, None], _appearances(colors)[:, None]).min(axis=1)
    chosen = []
    for _ in range(num_classes - len(colors)):
        chosen.append(distance.argmax())
        distance = np.minimum(distance, _color_difference(seen, seen[:, chosen[-1:]]))
    return np.concatenate([colors, grid[chosen]])[:num_classes].astype(np.uint8)


def default_colors(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Default colours of classes: the palette, repeated after its end.

    Args:
      num_classes: number of colours.

    Returns:
      RGB in 0..255, one a class.

    Example:
      >>> from segjax.data.palette import default_colors
      >>> default_colors(2)
      ((230, 159, 0), (86, 180, 233))
    """
    colors = [(r, g, b) for r, g, b in palette(min(num_classes, MOST_COLORS)).tolist()]
    return tuple(itertools.islice(itertools.cycle(colors), num_classes))


def _appearances(colors: np.ndarray) -> np.ndarray:
    """CIE L*a*b* `[vision, n, 3]` of RGB `[n, 3]` in 0..255 to each vision."""
    scaled = colors / 255
    linear = np.where(scaled > 0.04045, ((scaled + 0.055) / 1.055) ** 2.4, scaled / 12.92)
    seen = np.clip(np.einsum("vij,nj->vni", _VISIONS, linear), 0, 1)
    return cv2.cvtColor(seen.astype(np.float32), cv2.COLOR_LRGB2Lab)


def _color_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ΔE*ab of colours `[vision, ..., 3]`, to whichever vision tells them apart the least."""
    return np.linalg.norm(a - b, axis=-1).min(axis=0)
