"""Exact Euclidean distances to a region, on the device."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.numerics import broadcast_where
from segjax.typing import Array

# Rows that are worked on together, so that they stay in a CPU's cache, and sources in one pass
# over them.
_TILE = 64
_CHUNK = 8


def distance_transform(
    mask: Bool[Array, "*b h w"], *, spacing: tuple[float, float] = (1.0, 1.0)
) -> Float[jax.Array, "*b h w"]:
    """The exact distance to the nearest False pixel: `min_{q: ¬mask_q} ‖p − q‖₂`, centre to centre.

    Args:
      mask: `[*b, h, w]`.
      spacing: of (rows, columns), positive: the unit of the distances.

    Returns:
      float32 `[*b, h, w]`: 0 where `mask` is False. A mask without any False pixel has the
      diagonal of its picture everywhere, which no distance reaches.

    Raises:
      ValueError: if `mask` has fewer than 2 axes or `spacing` is not positive.
      TypeError: if `mask` is not boolean.

    Example:
      >>> distance_transform(jnp.array([[False, True, True], [True, True, True]]))
      Array([[0.       , 1.       , 2.       ],
             [1.       , 1.4142135, 2.236068 ]], dtype=float32)

    Source: Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012,
      section 2: one axis after the other.
    """
    _check_mask(mask)
    if min(spacing) <= 0:
        raise ValueError(f"spacing is {spacing}; due are two positive numbers")
    row, column = spacing
    height, width = mask.shape[-2:]
    bounded = jnp.any(~mask, axis=(-2, -1), keepdims=True)
    # Without any False pixel the distances would be inf, and 0 takes less time.
    along_row = jnp.where(bounded, _run_lengths(jnp.asarray(mask)) * (column / row), 0)
    distance = row * jnp.sqrt(_nearest_row(along_row**2))
    return jnp.where(bounded, distance, math.hypot(row * height, column * width))


def signed_distance(
    mask: Bool[Array, "*b h w"], *, where: Bool[Array, "..."] | None = None
) -> Float[jax.Array, "*b h w"]:
    """The distance to the other side of a mask's border: positive outside, negative inside.

    `φ_p = min_{q inside} ‖p − q‖ − min_{q outside} ‖p − q‖`, one of which is 0. So the pixels on
    either side of a border have 1 and −1, and `φ` of the complement is `−φ`.

    Args:
      mask: `[*b, h, w]`.
      where: broadcasts to `mask`; False for void pixels: they lie on neither side.

    Returns:
      float32 `[*b, h, w]` in pixels; 0 throughout where a side is empty: there is no border.

    Raises:
      ValueError: if `mask` has fewer than 2 axes or `where` does not fit.
      TypeError: if `mask` or `where` is not boolean.

    Example:
      >>> signed_distance(jnp.array([[True, True, False, False]]))
      Array([[-2., -1.,  1.,  2.]], dtype=float32)

    Source: Kervadec et al., "Boundary loss for highly unbalanced segmentation", 2019, section 2.
    """
    # The authors' code adds 1 inside, so that 0 is the mask's own rim; that breaks the symmetry.
    _check_mask(mask)
    valid = broadcast_where(where, mask.shape)
    sides = jnp.stack([mask & valid, ~mask & valid])
    inside, outside = distance_transform(~sides)
    has_border = jnp.all(jnp.any(sides, axis=(-2, -1), keepdims=True), axis=0)
    return jnp.where(has_border, inside - outside, 0)


# Compiled once: a loop that is called eagerly is compiled anew at every call.
@jax.jit
def _run_lengths(mask: Bool[jax.Array, "*b h w"]) -> Float[jax.Array, "*b h w"]:
    """Columns to the nearest False pixel of the same row; inf in a row without one."""

    def step(length, inside):
        length = jnp.where(inside, length + 1, 0)
        return length, length

    columns = jnp.moveaxis(mask, -1, 0)
    start = jnp.full_like(columns[0], jnp.inf, jnp.float32)
    (_, from_left), (_, from_right) = (
        jax.lax.scan(step, start, columns, reverse=reverse) for reverse in (False, True)
    )
    return jnp.moveaxis(jnp.minimum(from_left, from_right), 0, -1)


@jax.jit
def _nearest_row(squared: Float[jax.Array, "*b h w"]) -> Float[jax.Array, "*b h w"]:
    """`min_j squared[j] + (i − j)²` for every row i.

    Every pair of rows is tried that may matter: a tile of rows tries those no farther than the
    distances it already has. That is cubic in the size where they are long, but without branches
    or gathers, and so faster here than the linear algorithm that builds an envelope of parabolas.
    """
    height = squared.shape[-2]
    tile = min(_TILE, height)
    has_source = jnp.any(jnp.isfinite(squared), axis=(*range(squared.ndim - 2), -1))
    first_source = jnp.argmax(has_source)
    last_source = height - 1 - jnp.argmax(has_source[::-1])

    def solve(t, result):
        start = jnp.minimum(t * tile, height - tile)
        rows = start + jnp.arange(tile)[:, None]
        best = jax.lax.dynamic_slice_in_dim(squared, start, tile, axis=-2)
        reach = jnp.minimum(jnp.ceil(jnp.sqrt(jnp.max(best))), height).astype(int)
        first = jnp.maximum(start - reach, first_source)
        last = jnp.minimum(start + tile - 1 + reach, last_source)

        def try_chunk(n, best):
            for k in range(_CHUNK):
                source = jnp.minimum(first + n * _CHUNK + k, last)
                offset = (rows - source).astype(squared.dtype)
                row = jax.lax.dynamic_slice_in_dim(squared, source, 1, axis=-2)
                best = jnp.minimum(best, row + offset**2)
            return best

        best = jax.lax.fori_loop(0, (last - first) // _CHUNK + 1, try_chunk, best)
        return jax.lax.dynamic_update_slice_in_dim(result, best, start, axis=-2)

    return jax.lax.fori_loop(0, -(-height // tile), solve, squared)


def _check_mask(mask: Array) -> None:
    if mask.ndim < 2:
        raise ValueError(f"mask has shape {mask.shape}; due is [*b, h, w]")
    if mask.dtype != bool:
        raise TypeError(f"mask is {mask.dtype}; due is bool")
