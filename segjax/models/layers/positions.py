"""Position embeddings of pixels and patches."""

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
    """DETR's position embeddings: sines and cosines of each pixel's row, then of its column.

    `(sin(p / t_0), cos(p / t_0), sin(p / t_1), …)` with `t_i = T^(4 i / features)`, where `p` goes
    from `2π/n` to `2π` over the `n` rows or columns of the image.

    Args:
      where: `[*b, h, w]`; False for padding.
      features: Channels of the embedding, a multiple of 4.
      temperature: `T`.
      dtype: Dtype of the result.

    Returns:
      `[*b, h, w, features]`.

    Raises:
      ValueError: If `features` is not a multiple of 4.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.models.layers.positions import sine_positions
      >>> positions = sine_positions(jnp.ones((2, 4), bool), 4)
      >>> positions[0, :, 3].round()  # the columns' cosines
      Array([ 0., -1., -0.,  1.], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, appendix A.4; as
      its authors' code normalises it.
    """
    if features % 4:
        raise ValueError(f"features: expected a multiple of 4, got {features}")
    compute = jnp.promote_types(dtype, jnp.float32)
    periods = jnp.asarray(temperature, compute) ** (jnp.arange(0, features, 4) / features)

    def waves(axis):
        place = jnp.cumsum(where, axis, dtype=compute)
        last = jax.lax.slice_in_dim(place, place.shape[axis] - 1, None, axis=axis)
        # The ε of the authors' code; it changes the last digits of float32.
        angles = (2 * math.pi * place / (last + 1e-6))[..., None] / periods
        pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return pairs.reshape(*where.shape, features // 2)

    rows, columns = where.ndim - 2, where.ndim - 1
    return jnp.concatenate([waves(rows), waves(columns)], axis=-1).astype(dtype)


def sine_tokens(
    x: Float[jax.Array, "*b h w c"], features: int, dtype: Dtype
) -> Float[jax.Array, "*p n features"]:
    """The sine positions of a map's pixels, row by row; those of each image on a canvas."""
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
    """DINOv3's rotary position embeddings: the angle of each pair of channels at each patch.

    `2π s p / T^(4 i / features)` for `i = 0 … features/4 − 1`, where `p` is the row of the patch's
    centre, then its column, both from −1 at one border of the image to 1 at the other.

    Args:
      grid: (rows, columns) of the patches.
      features: Channels of the rotated vectors, a multiple of 4.
      temperature: `T`.
      scale: `s`.
      dtype: Dtype of the result, at least float32.

    Returns:
      `[rows · columns, features / 2]` in radians, row by row.

    Raises:
      ValueError: If `features` is not a multiple of 4.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.models.layers.positions import rotary_angles
      >>> rotary_angles((1, 2), 4) / jnp.pi
      Array([[ 0., -1.],
             [ 0.,  1.]], dtype=float32)

    References:
      Siméoni et al., "DINOv3", 2025, section 3.2, as its authors' code has it; Su et al.,
      "RoFormer", 2021, eq. 15.
    """
    if features % 4:
        raise ValueError(f"features: expected a multiple of 4, got {features}")
    compute = jnp.promote_types(dtype, jnp.float32)
    periods = jnp.asarray(temperature, compute) ** (jnp.arange(0, features, 4) / features)
    rows, columns = ((2 * jnp.arange(n, dtype=compute) + 1) / n - 1 for n in grid)
    places = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
    angles = 2 * math.pi * jnp.asarray(scale, compute) * places[..., None] / periods
    return angles.reshape(grid[0] * grid[1], features // 2)


def rotate(
    x: Float[jax.Array, "*b n d"], angles: Float[jax.Array, "m half"]
) -> Float[jax.Array, "*b n d"]:
    """Rotates channels i and i + d/2 of the last m tokens as the two axes of a plane."""
    others, x = jnp.split(x, [x.shape[-2] - len(angles)], axis=-2)
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([others, turned], axis=-2)


def flatten(x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b n c"]:
    """The pixels of a map, row by row, as tokens."""
    return x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1])
