"""Where a pixel lies, as what a transformer can add to its features, or turn them by."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.models.layers.canvas import picture_pixels
from segjax.models.layers.linear import Dtype
from segjax.typing import Array


def sine_positions(
    where: Bool[Array, "*b h w"],
    features: int,
    *,
    temperature: float = 10000.0,
    dtype: Dtype = jnp.float32,
) -> Float[jax.Array, "*b h w features"]:
    """Sines and cosines of each pixel's row, and then of its column: DETR's position embedding.

    `(sin(p / t_0), cos(p / t_0), sin(p / t_1), …)` with `t_i = T^(4 i / features)`, where `p` runs
    from `2π/n` to `2π` over the `n` rows, or columns, of the picture.

    Args:
      where: `[*b, h, w]`, True where there is picture and False where a canvas is only filled up;
        all True without filling.
      features: of the embedding, a multiple of 4.
      temperature: `T`.
      dtype: of the result.

    Returns:
      `[*b, h, w, features]`.

    Raises:
      ValueError: if `features` is no multiple of 4.

    Example:
      >>> positions = sine_positions(jnp.ones((2, 4), bool), 4)
      >>> positions[0, :, 3].round()  # the columns' cosines
      Array([ 0., -1., -0.,  1.], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, appendix A.4; as
      its authors' code normalises it.
    """
    if features % 4:
        raise ValueError(f"features is {features}; due is a multiple of 4")
    compute = jnp.promote_types(dtype, jnp.float32)
    periods = jnp.asarray(temperature, compute) ** (jnp.arange(0, features, 4) / features)

    def waves(axis):
        place = jnp.cumsum(where, axis, dtype=compute)
        last = jax.lax.slice_in_dim(place, place.shape[axis] - 1, None, axis=axis)
        # The authors' ε; it moves the last digits of float32.
        angles = (2 * math.pi * place / (last + 1e-6))[..., None] / periods
        pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return pairs.reshape(*where.shape, features // 2)

    rows, columns = where.ndim - 2, where.ndim - 1
    return jnp.concatenate([waves(rows), waves(columns)], axis=-1).astype(dtype)


def sine_tokens(
    x: Float[jax.Array, "*b h w c"], features: int, dtype: Dtype
) -> Float[jax.Array, "*p n features"]:
    """The sine positions of a map's pixels, row by row; on canvases those of each picture."""
    where = picture_pixels(x)
    if where is None:
        where = jnp.ones(x.shape[-3:-1], bool)
    return flatten(sine_positions(where, features, dtype=dtype))


def rotary_angles(
    grid: tuple[int, int],
    features: int,
    *,
    temperature: float = 100.0,
    scale: Float[Array, ""] | float = 1.0,
    dtype: Dtype = jnp.float32,
) -> Float[jax.Array, "n half"]:
    """How far each pair of channels is turned at each patch: DINOv3's rotary positions.

    `2π s p / T^(4 i / features)` for `i = 0 … features/4 − 1`, where `p` is the row of the patch's
    centre, and then its column, both from −1 at the image's one border to 1 at the other.

    Args:
      grid: (rows, columns) of the patches.
      features: of the vectors that are turned, a multiple of 4.
      temperature: `T`.
      scale: `s`.
      dtype: of the result, at least float32.

    Returns:
      `[rows · columns, features / 2]` in radians, row by row.

    Raises:
      ValueError: if `features` is no multiple of 4.

    Example:
      >>> rotary_angles((1, 2), 4) / jnp.pi
      Array([[ 0., -1.],
             [ 0.,  1.]], dtype=float32)

    References:
      Siméoni et al., "DINOv3", 2025, section 3.2, as its authors' code has it; Su et al.,
      "RoFormer", 2021, eq. 15.
    """
    if features % 4:
        raise ValueError(f"features is {features}; due is a multiple of 4")
    compute = jnp.promote_types(dtype, jnp.float32)
    periods = jnp.asarray(temperature, compute) ** (jnp.arange(0, features, 4) / features)
    rows, columns = ((2 * jnp.arange(n, dtype=compute) + 1) / n - 1 for n in grid)
    places = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
    angles = 2 * math.pi * jnp.asarray(scale, compute) * places[..., None] / periods
    return angles.reshape(grid[0] * grid[1], features // 2)


def rotate(
    x: Float[jax.Array, "*b n d"], angles: Float[jax.Array, "m half"]
) -> Float[jax.Array, "*b n d"]:
    """Turns channel i and channel i + d/2 of the last m tokens, as a plane's two axes."""
    others, x = jnp.split(x, [x.shape[-2] - len(angles)], axis=-2)
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([others, turned], axis=-2)


def flatten(x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b n c"]:
    """The pixels of a map, row by row: tokens of a transformer."""
    return x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1])
