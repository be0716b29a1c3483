"""Boundaries of label maps and of masks."""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Integer

from segjax.numerics import broadcast_where
from segjax.ops.morphology import neighborhood
from segjax.typing import Array


def label_edges(
    labels: Integer[Array, "*b h w"], *, where: Bool[Array, "*b h w"] | None = None
) -> Bool[jax.Array, "*b h w"]:
    """Boundary pixels of a label map: those with a 4-neighbour of another label.

    Both sides of a boundary are marked.

    Args:
      labels: integers `[*b, h, w]`.
      where: `[*b, h, w]`, False for void pixels, which are no edges and cause none.

    Returns:
      `[*b, h, w]`, True on edges.

    Raises:
      ValueError: If `labels` has fewer than 2 axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.label_edges(jnp.array([[0, 0, 1, 1]])).astype(int)
      Array([[0, 1, 1, 0]], dtype=int32)
    """
    if labels.ndim < 2:
        raise ValueError(f"labels: expected shape [*b, h, w], got {labels.shape}")
    valid = broadcast_where(where, labels.shape)
    down = (labels[..., 1:, :] != labels[..., :-1, :]) & valid[..., 1:, :] & valid[..., :-1, :]
    right = (labels[..., 1:] != labels[..., :-1]) & valid[..., 1:] & valid[..., :-1]
    return _both_sides(down, -2) | _both_sides(right, -1)


def mask_boundary(
    mask: Bool[Array, "*b h w"],
    *,
    width: int | None = None,
    fraction: float | None = None,
    side: Literal["inner", "outer"] = "inner",
    connectivity: int = 8,
    where: Bool[Array, "..."] | None = None,
) -> Bool[jax.Array, "*b h w"]:
    r"""The band of pixels along a mask's boundary: what `width` erosions remove.

    The inner band is `M \ (M ⊖ B ⊖ … ⊖ B)`, the outer one `(M ⊕ B ⊕ … ⊕ B) \ M`, with `B` the 3x3
    square or cross. Everything outside the image is background, so a mask that touches the edge of
    the image has a boundary there.

    Args:
      mask: `[*b, h, w]`, boolean.
      width: Width of the band in pixels, at least 1.
      fraction: Alternative to `width`: the width as a fraction of the image diagonal, positive;
        rounded, and at least one pixel.
      side: "inner" for the band inside the mask, "outer" for the one around it.
      connectivity: 8 to erode by the square, 4 by the cross, which leaves out pixels that touch
        the other side only at a corner.
      where: Broadcasts to `mask`; False for void pixels, which are in no band and cause none.

    Returns:
      `[*b, h, w]`, True in the band.

    Raises:
      ValueError: If `mask` has fewer than 2 axes, if both or neither of `width` and `fraction` are
        given, or if an option is out of its range.
      TypeError: If `mask` or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.mask_boundary(jnp.ones((4, 5), bool), width=1).astype(int)
      Array([[1, 1, 1, 1, 1],
             [1, 0, 0, 0, 1],
             [1, 0, 0, 0, 1],
             [1, 1, 1, 1, 1]], dtype=int32)

    References:
      Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation",
      2021, section 4: the inner band.
    """
    if mask.ndim < 2:
        raise ValueError(f"mask: expected shape [*b, h, w], got {mask.shape}")
    if mask.dtype != bool:
        raise TypeError(f"mask: expected bool, got {mask.dtype}")
    if side not in ("inner", "outer"):
        raise ValueError(f'side: expected "inner" or "outer", got {side!r}')
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity: expected 4 or 8, got {connectivity}")
    steps = _band_width(mask.shape[-2:], width, fraction)
    valid = broadcast_where(where, mask.shape)
    region = jnp.asarray(mask) if side == "inner" else ~jnp.asarray(mask)
    # Void counts as part of the region, so that it erodes nothing.
    eroded = _erode(region | ~valid, steps, connectivity=connectivity, outside=side == "outer")
    return region & valid & ~eroded


# Jitted, as a loop that is called eagerly is compiled at every call.
@functools.partial(jax.jit, static_argnames=("connectivity", "outside"))
def _erode(
    region: Bool[jax.Array, "*b h w"],
    steps: Int[Array, ""] | int,
    *,
    connectivity: int,
    outside: bool,
) -> Bool[jax.Array, "*b h w"]:
    def step(_, region):
        return neighborhood(jnp.logical_and, region, connectivity, outside=outside)

    return jax.lax.fori_loop(0, steps, step, region)


def _band_width(shape: tuple[int, ...], width: int | None, fraction: float | None) -> int:
    if width is not None and fraction is None:
        if width < 1:
            raise ValueError(f"width: expected at least 1, got {width}")
        return width
    if fraction is not None and width is None:
        if fraction <= 0:
            raise ValueError(f"fraction: expected a positive number, got {fraction}")
        return max(1, round(fraction * math.hypot(*shape)))
    raise ValueError(f"width, fraction: expected one of the two, got {width}, {fraction}")


def _both_sides(border: Bool[Array, "..."], axis: int) -> Bool[jax.Array, "..."]:
    """The pixels before and after each border between neighbours of one axis."""
    border = jnp.moveaxis(border, axis, -1)
    none = jnp.zeros((*border.shape[:-1], 1), bool)
    before, after = (jnp.concatenate(sides, axis=-1) for sides in ([border, none], [none, border]))
    return jnp.moveaxis(before | after, -1, axis)
