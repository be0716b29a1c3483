"""Anchors: the boxes that a detector's head starts from, on the grid of every feature map."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def pyramid_anchors(
    shapes: Sequence[tuple[int, int]],
    *,
    strides: Sequence[int | tuple[int, int]],
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    offset: float = 0.0,
    rounded: bool = False,
    order: str = "size",
) -> list[Float[np.ndarray, "n 4"]]:
    """The anchors of each level: every size and aspect ratio around every cell of its grid.

    An anchor of size `s` and ratio `r` has the width `s/√r`, the height `s·√r` and the centre
    `stride · (column + offset, row + offset)`. Rows come first, then columns, then the anchors of
    a cell.

    As detectron2's `DefaultAnchorGenerator` by default; as torchvision's `AnchorGenerator` with
    `rounded=True, order="ratio"` and `strides` that are `image_size // shape`.

    Args:
      shapes: (h, w) of the feature map of each level.
      strides: image pixels from one cell to the next, of each level: a number, or one for
        (rows, columns).
      sizes: of each level, in pixels: the square roots of the anchors' areas.
      aspect_ratios: height over width, the same for all levels.
      offset: where in its cell an anchor's centre lies, in strides: 0 the first corner, ½ the
        middle.
      rounded: whether the corners of the anchor around (0, 0) are whole pixels, ½ to the even one.
      order: which of a cell's anchors come first: "size", all those of the first size, or
        "ratio", all those of the first ratio.

    Returns:
      For each level a constant, float32 `[n, 4]` of NumPy, xyxy in pixels, with
      `n = h · w · len(sizes) · len(aspect_ratios)`. They may lie outside the image.

    Raises:
      ValueError: if there are not as many strides or sizes as shapes, or `order` is unknown.

    Example:
      >>> pyramid_anchors([(1, 2)], strides=[8], sizes=[[4.0]], aspect_ratios=[1.0])[0]
      array([[-2., -2.,  2.,  2.],
             [ 6., -2., 10.,  2.]], dtype=float32)

    References:
      Ren et al., "Faster R-CNN", 2015, section 3.1.1.
    """
    for name, values in (("strides", strides), ("sizes", sizes)):
        if len(values) != len(shapes):
            raise ValueError(f"{name} has {len(values)} levels; due are {len(shapes)}, as shapes")
    if order not in ("size", "ratio"):
        raise ValueError(f'order is {order!r}; due is "size" or "ratio"')
    levels = []
    for (height, width), stride, of_level in zip(shapes, strides, sizes, strict=True):
        size, ratio = np.meshgrid(
            np.asarray(of_level, np.float32),
            np.asarray(aspect_ratios, np.float32),
            indexing="ij" if order == "size" else "xy",
        )
        sides = np.stack([size / np.sqrt(ratio), size * np.sqrt(ratio)], axis=-1).reshape(-1, 2)
        around_zero = np.concatenate([-sides, sides], axis=-1) / 2
        if rounded:
            around_zero = np.round(around_zero)
        rows, columns = (
            (np.arange(length, dtype=np.float32) + offset) * step
            for length, step in zip((height, width), np.broadcast_to(stride, 2), strict=True)
        )
        y, x = np.meshgrid(rows, columns, indexing="ij")
        centres = np.stack([x, y, x, y], axis=-1)
        levels.append((centres[:, :, None] + around_zero).reshape(-1, 4).astype(np.float32))
    return levels
