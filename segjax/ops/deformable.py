"""Deformable attention: each query reads feature maps at a few points of its choice."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def deformable_attention(
    levels: Sequence[Float[Array, "*b _ _ heads c"]],
    locations: Float[Array, "*b q heads levels points 2"],
    weights: Float[Array, "*b q heads levels points"],
) -> Float[jax.Array, "*b q heads c"]:
    """Multi-scale deformable attention: `Σ_lp weights[l, p] · levels[l](locations[l, p])`.

    Each head of each query reads a few points of each level. Values between pixels are
    interpolated bilinearly; outside the map they are 0. Differentiable in all arguments, in reverse
    mode and once.

    Args:
      levels: Feature maps, each `[*b, h, w, heads, c]` with its own h and w.
      locations: `[*b, q, heads, levels, points, 2]`, (x, y) as fractions of the image's width and
        height from its top-left corner, so that they mean the same on all levels.
      weights: `[*b, q, heads, levels, points]`, usually a softmax over the last two axes.

    Returns:
      `[*b, q, heads, c]` in the dtype of `levels`; computed in at least float32. Values and
      gradients are finite for any point, however far outside.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If an argument is not of a floating dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ramp = jnp.array([1.0, 3.0])[None, :, None, None]
      >>> centre = jnp.full((1, 1, 1, 1, 2), 0.5)
      >>> ops.deformable_attention([ramp], centre, jnp.ones((1, 1, 1, 1))).item()
      2.0

    References:
      Zhu et al., "Deformable DETR", 2021, eq. 3.
    """
    _check(levels, locations, weights)
    dtype = accumulation_dtype(locations, weights, *levels)
    locations, weights = jnp.asarray(locations, dtype), jnp.asarray(weights, dtype)
    *lead, _, _, heads, channels = levels[0].shape
    pixels = [jnp.asarray(x, dtype).reshape(*lead, -1, heads, channels) for x in levels]
    sizes = [x.shape[-3] for x in pixels]

    taps = []
    for level, values in enumerate(levels):
        height, width = values.shape[-4:-2]
        for pixel, share in _corners(locations[..., level, :, :], height, width):
            taps.append((sum(sizes[:level]) + pixel, share * weights[..., level, :]))
    # [4 · levels · points, *b, q, heads]: every corner of every point is a tap.
    pixel, weight = (
        jnp.moveaxis(jnp.concatenate(parts, axis=-1), -1, 0) for parts in zip(*taps, strict=True)
    )
    example = jnp.arange(math.prod(lead)).reshape(*lead, 1, 1)
    row = (example * sum(sizes) + pixel) * heads + jnp.arange(heads)
    table = jnp.concatenate(pixels, axis=-3).reshape(-1, channels)
    # Without the barrier every gathered row would search the concatenated parts again.
    arguments = jax.lax.optimization_barrier(
        (table, *(x.reshape(len(x), -1) for x in (row, weight)))
    )
    return _read(*arguments).reshape(*row.shape[1:], channels).astype(levels[0].dtype)


def _corners(points: jax.Array, height: int, width: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Index and bilinear weight of the four pixels around each point; weight 0 outside the map."""
    # From the first pixel's centre. Beyond two pixels outside the map nothing changes.
    x = jnp.clip(points[..., 0] * width - 0.5, -2, width + 1)
    y = jnp.clip(points[..., 1] * height - 0.5, -2, height + 1)
    left, top = jnp.floor(x), jnp.floor(y)
    for down, right in itertools.product((0, 1), (0, 1)):
        row, column = top.astype(jnp.int32) + down, left.astype(jnp.int32) + right
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        share = (y - top if down else top + 1 - y) * (x - left if right else left + 1 - x)
        yield jnp.where(inside, row * width + column, 0), jnp.where(inside, share, 0)


@jax.custom_vjp
def _read(rows: jax.Array, index: jax.Array, weights: jax.Array) -> jax.Array:
    """`out[i] = Σ_k weights[k, i] · rows[index[k, i]]`."""
    taps = zip(index, weights, strict=True)
    return functools.reduce(jnp.add, (w[:, None] * rows.at[i].get(mode="clip") for i, w in taps))


def _read_forward(*arguments: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _read(*arguments), arguments


def _read_backward(
    arguments: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, None, jax.Array]:
    rows, index, weights = arguments

    def add(by_rows, tap):
        i, w = tap
        by_weights = jnp.sum(rows.at[i].get(mode="clip") * cotangent, axis=-1)
        return by_rows.at[i].add(w[:, None] * cotangent, mode="clip"), by_weights

    # Tap by tap: on a CPU one scatter of all takes several times the time and memory. Inside
    # shard_map the carry must vary over the same devices as what is added to it.
    zeros = jnp.zeros_like(rows) + jnp.zeros_like(cotangent, shape=())
    by_rows, by_weights = jax.lax.scan(add, zeros, (index, weights))
    return by_rows, None, by_weights


_read.defvjp(_read_forward, _read_backward)


def _check(levels: Sequence[Array], locations: Array, weights: Array) -> None:
    """Raises the errors of `deformable_attention`."""
    if len(levels) == 0:
        raise ValueError("levels: expected at least one map, got none")
    for values in levels:
        if values.ndim < 4 or 0 in values.shape[-4:-2]:
            raise ValueError(f"levels: expected shape [*b, h, w, heads, c], got {values.shape}")
        if (*values.shape[:-4], *values.shape[-2:]) != (
            *levels[0].shape[:-4],
            *levels[0].shape[-2:],
        ):
            raise ValueError(
                "levels: expected shapes that differ in h and w alone, got "
                f"{[x.shape for x in levels]}"
            )
    *lead, _, _, heads, _ = levels[0].shape
    expected = (*lead, heads, len(levels), 2)
    given = (*locations.shape[:-5], *locations.shape[-4:-2], *locations.shape[-1:])
    if locations.ndim < 5 or given != expected:
        raise ValueError(
            f"locations: expected shape {(*lead, 'q', heads, len(levels), 'points', 2)}, got "
            f"{locations.shape}"
        )
    if weights.shape != locations.shape[:-1]:
        raise ValueError(f"weights: expected shape {locations.shape[:-1]}, got {weights.shape}")
    for name, array in (
        ("locations", locations),
        ("weights", weights),
        *(("levels", x) for x in levels),
    ):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: expected a floating dtype, got {array.dtype}")
