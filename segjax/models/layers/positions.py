"""Where a pixel lies, as a vector that a transformer can add to its features."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

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

    Source: Carion et al., "End-to-end object detection with transformers", 2020, appendix A.4; as
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
    size: tuple[int, ...], features: int, dtype: Dtype
) -> Float[jax.Array, "n features"]:
    """The sine positions of a whole map's pixels, row by row."""
    return flatten(sine_positions(jnp.ones(size, bool), features, dtype=dtype))


def flatten(x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b n c"]:
    """The pixels of a map, row by row: tokens of a transformer."""
    return x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1])
