"""Exact Euclidean distance transforms, on the device."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.mapping import join_vmap
from segjax.numerics import broadcast_where
from segjax.typing import Array

# Rows and columns of a block of work that stays in a CPU's cache.
_TILE = 16
_STRIP = 64


def distance_transform(
    mask: Bool[Array, "*b h w"], *, spacing: tuple[float, ...] = (1.0, 1.0)
) -> Float[jax.Array, "*b h w"]:
    """Exact Euclidean distance from each pixel to the nearest False one.

    `d_p = min_{q: ¬mask_q} ‖p − q‖₂`, between the centres of pixels.

    Args:
      mask: `[*b, h, w]`; or, with three spacings, volumes `[*b, d, h, w]`.
      spacing: Distance between neighbouring (rows, columns) or (slices, rows, columns), positive.

    Returns:
      float32 of `mask`'s shape, in units of `spacing`; 0 where `mask` is False. A mask without any
      False pixel has the length of the image's diagonal everywhere, which no distance reaches.

    Raises:
      ValueError: If `spacing` is not two or three positive numbers, or `mask` has fewer axes.
      TypeError: If `mask` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.distance_transform(jnp.array([[False, True, True, True]]))
      Array([[0., 1., 2., 3.]], dtype=float32)

    References:
      Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012,
      section 2.
    """
    if len(spacing) not in (2, 3) or min(spacing) <= 0:
        raise ValueError(f"spacing: expected two or three positive numbers, got {spacing}")
    _check_mask(mask, axes=len(spacing))
    *slices, row, column = spacing
    size = mask.shape[-len(spacing) :]
    bounded = jnp.any(~mask, axis=tuple(range(-len(spacing), 0)), keepdims=True)
    # Without any False pixel the distances would be inf, and 0 takes less time.
    along_row = jnp.where(bounded, _run_lengths(jnp.asarray(mask)) * (column / row), 0)
    squared, unit = _nearest_row(along_row**2), row
    if slices:
        rows = squared.reshape(*mask.shape[:-2], -1) * (unit / slices[0]) ** 2
        squared, unit = _nearest_row(rows).reshape(mask.shape), slices[0]
    diagonal = math.hypot(*(step * n for step, n in zip(spacing, size, strict=True)))
    return jnp.where(bounded, unit * jnp.sqrt(squared), diagonal)


def signed_distance(
    mask: Bool[Array, "*b h w"], *, where: Bool[Array, "..."] | None = None
) -> Float[jax.Array, "*b h w"]:
    """Signed distance to the boundary of a mask: positive outside, negative inside.

    `φ_p = min_{q inside} ‖p − q‖ − min_{q outside} ‖p − q‖`, one of which is 0. So the pixels on
    the two sides of a boundary have 1 and −1, and the complement of the mask has `−φ`.

    Args:
      mask: `[*b, h, w]`.
      where: Broadcasts to `mask`; False for void pixels, which lie on neither side.

    Returns:
      float32 `[*b, h, w]` in pixels; 0 everywhere if one side is empty, as there is no boundary.

    Raises:
      ValueError: If `mask` has fewer than 2 axes or `where` does not fit.
      TypeError: If `mask` or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.signed_distance(jnp.array([[True, True, False, False]]))
      Array([[-2., -1.,  1.,  2.]], dtype=float32)

    References:
      Kervadec et al., "Boundary loss for highly unbalanced segmentation", 2019, section 2.
    """
    # The authors' code adds 1 inside, so that 0 is the rim of the mask; that breaks the symmetry.
    _check_mask(mask)
    valid = broadcast_where(where, mask.shape)
    sides = jnp.stack([mask & valid, ~mask & valid])
    inside, outside = distance_transform(~sides)
    has_border = jnp.all(jnp.any(sides, axis=(-2, -1), keepdims=True), axis=0)
    return jnp.where(has_border, inside - outside, 0)


# Jitted, as a loop that is called eagerly is compiled at every call.
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
    """`min_j squared[j] + (i − j)²` for every row i."""
    if squared.shape[-2] <= _TILE:
        return _row_by_all(squared)  # as a single tile would
    images = squared.reshape(math.prod(squared.shape[:-2]), *squared.shape[-2:])
    nearest = jax.lax.platform_dependent(images, cpu=_row_by_tiles, default=_row_by_all)
    return nearest.reshape(squared.shape)


def _row_by_all(squared: Float[jax.Array, "*b h w"]) -> Float[jax.Array, "*b h w"]:
    """Tries every pair of rows: h times the work, without loops, branches or gathers."""
    row = jnp.arange(squared.shape[-2], dtype=squared.dtype)
    offset = row[:, None] - row
    return jnp.min(squared[..., None, :, :] + offset[..., None] ** 2, axis=-2)


@join_vmap
def _row_by_tiles(squared: Float[jax.Array, "b h w"]) -> Float[jax.Array, "b h w"]:
    """Tries, tile by tile, the rows between the nearest ones of the tile's first and last row.

    That is enough because the nearest row never moves up as i moves down: if row `j` is nearest to
    row i, no row above `j` is nearer to a row below i. Only every 16th row tries all rows.
    """
    _, height, width = squared.shape
    strip = min(_STRIP, width)
    # The padding makes whole tiles: rows that are far from everything, and copies of a column.
    below, beside = [(0, 0), (0, -height % _TILE), (0, 0)], [(0, 0), (0, 0), (0, -width % strip)]
    images = jnp.pad(jnp.pad(squared, below, constant_values=jnp.inf), beside, mode="edge")

    rows = jnp.arange(0, images.shape[-2] + 1, _TILE)
    nearest = _split(_nearest_of_rows(images, rows), strip)
    starts, ends = jnp.min(nearest[:, :-1], axis=-1), jnp.max(nearest[:, 1:], axis=-1)
    strips = jax.lax.map(_solve_strip, (_split(images, strip), starts, ends))

    strips = strips.reshape(len(images), images.shape[2] // strip, images.shape[1], strip)
    result = jnp.moveaxis(strips, 1, 2).reshape(images.shape)
    return result[:, :height, :width]


def _split(images: jax.Array, strip: int) -> jax.Array:
    """`[b, h, w]` cut into strips of columns: `[b·w/strip, h, strip]`."""
    b, h, w = images.shape
    strips = jnp.moveaxis(images.reshape(b, h, w // strip, strip), 2, 1)
    return strips.reshape(b * (w // strip), h, strip)


def _nearest_of_rows(images: jax.Array, rows: jax.Array) -> jax.Array:
    """`argmin_j images[:, j] + (i − j)²` for some rows i: `[b, len(rows), w]`."""

    def squares(source):
        row = jax.lax.dynamic_slice_in_dim(images, source, 1, axis=1)
        return row + ((rows - source)[:, None] ** 2).astype(images.dtype)

    def closer(source, found):
        best, nearest = found
        candidate = squares(source)
        is_closer = candidate < best
        return jnp.where(is_closer, candidate, best), jnp.where(is_closer, source, nearest)

    best = squares(0)
    found = best, jnp.zeros_like(best, int)
    return jax.lax.fori_loop(1, images.shape[1], closer, found, unroll=8)[1]


def _solve_strip(strip_and_range: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """`min_j strip[j] + (i − j)²`, j from `starts[t]` to `ends[t]` where i is in tile t."""
    strip, starts, ends = strip_and_range

    def solve_tile(tile):
        first, start, end = tile
        rows = first + jnp.arange(_TILE)[:, None]

        def try_chunk(k, best):
            source = jnp.minimum(start + k * _TILE, len(strip) - _TILE)
            chunk = jax.lax.dynamic_slice_in_dim(strip, source, _TILE)
            for n in range(_TILE):
                offset = (rows - source - n).astype(strip.dtype)
                best = jnp.minimum(best, chunk[n] + offset**2)
            return best

        best = jax.lax.dynamic_slice_in_dim(strip, first, _TILE)
        return jax.lax.fori_loop(0, (end - start) // _TILE + 1, try_chunk, best)

    tiles = jnp.arange(0, len(strip), _TILE), starts, ends
    return jax.lax.map(solve_tile, tiles).reshape(strip.shape)


def _check_mask(mask: Array, *, axes: int = 2) -> None:
    if mask.ndim < axes:
        expected = "[*b, h, w]" if axes == 2 else "[*b, d, h, w]"
        raise ValueError(f"mask: expected shape {expected}, got {mask.shape}")
    if mask.dtype != bool:
        raise TypeError(f"mask: expected bool, got {mask.dtype}")
