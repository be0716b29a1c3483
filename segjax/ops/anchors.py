"""Anchors: the boxes that a detector's head refines, on the grid of each feature map."""

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
    """Anchor boxes of each pyramid level: every size and aspect ratio at every cell of its grid.

    An anchor of size `s` and ratio `r` has the width `s/√r`, the height `s·√r` and the centre
    `stride · (column + offset, row + offset)`. They are listed row by row, cell by cell.

    The defaults give the anchors of detectron2's `DefaultAnchorGenerator`. For those of
    torchvision's `AnchorGenerator`, set `rounded=True, order="ratio"` and `strides` to
    `image_size // shape`.

    Args:
      shapes: (h, w) of the feature map of each level.
      strides: Distance between neighbouring cells of each level in image pixels: a number, or
        (rows, columns).
      sizes: Anchor sizes of each level in pixels: the square roots of the anchors' areas.
      aspect_ratios: Height over width, the same for all levels.
      offset: Position of an anchor's centre in its cell, in strides: 0 for the top-left corner,
        ½ for the middle.
      rounded: Whether to round the corners of a cell's anchors, relative to its centre, to whole
        pixels (halves to even).
      order: "size" to list a cell's anchors size by size, "ratio" to list them ratio by ratio.

    Returns:
      A NumPy array for each level, float32 `[n, 4]`, xyxy in pixels, with
      `n = h · w · len(sizes) · len(aspect_ratios)`. Anchors may lie outside the image.

    Raises:
      ValueError: If there are not as many strides or sizes as shapes, or `order` is unknown.

    Example:
      >>> from segjax import ops
      >>> ops.pyramid_anchors([(1, 2)], strides=[8], sizes=[[4.0]], aspect_ratios=[1.0])[0]
      array([[-2., -2.,  2.,  2.],
             [ 6., -2., 10.,  2.]], dtype=float32)

    References:
      Ren et al., "Faster R-CNN", 2015, section 3.1.1.
    """
    for name, values in (("strides", strides), ("sizes", sizes)):
        if len(values) != len(shapes):
            raise ValueError(
                f"{name}: expected one for each of {len(shapes)} levels, got {len(values)}"
            )
    if order not in ("size", "ratio"):
        raise ValueError(f'order: expected "size" or "ratio", got {order!r}')
    levels = []
    for (height, width), stride, level_sizes in zip(shapes, strides, sizes, strict=True):
        size, ratio = np.meshgrid(
            np.asarray(level_sizes, np.float32),
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
