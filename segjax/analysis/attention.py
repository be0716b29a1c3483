"""Attention as a signal: where a transformer looks, as maps of the image, and what that tells."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax import ops
from segjax.numerics import accumulation_dtype, broadcast_where
from segjax.typing import Array


def class_token_maps(
    attention: Float[Array, "*b queries keys"],
    shape: tuple[int, int],
    *,
    patch_size: int = 16,
    prefix_tokens: int = 1,
) -> Float[jax.Array, "*b h w"]:
    """How much the class token attends to each place of the image: `A[0, patch]`, upsampled.

    Args:
      attention: `[*b, n, n]`, the heads among the leading axes; or a rollout of several blocks.
        Tokens are the class token, others, and the patches, row by row.
      shape: (h, w) of the image.
      patch_size: side of the patches, in pixels; those of the last row and column may reach beyond
        the image.
      prefix_tokens: number of tokens before the patches, as `VisionTransformer.prefix_tokens`.

    Returns:
      `[*b, h, w]`, at least float32: bilinear between the patches' centres.

    Raises:
      ValueError: if there are not as many keys as tokens of such an image.

    Example:
      >>> attention = jnp.array([[0.25, 0.25, 0.5], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
      >>> class_token_maps(attention, (1, 4), patch_size=2)
      Array([[0.25  , 0.3125, 0.4375, 0.5   ]], dtype=float32)

    References:
      Caron et al., "Emerging properties in self-supervised vision transformers", 2021,
      section 4.
    """
    rows, columns = _grid(shape, patch_size)
    if attention.shape[-1] != prefix_tokens + rows * columns:
        raise ValueError(
            f"attention has {attention.shape[-1]} keys; due are {prefix_tokens} and those of "
            f"{rows} * {columns} patches"
        )
    return _patch_maps(attention[..., 0, prefix_tokens:], shape, patch_size)


def class_query_maps(
    attention: Float[Array, "*b queries keys"],
    shape: tuple[int, int],
    *,
    patch_size: int = 16,
) -> Float[jax.Array, "*b classes h w"]:
    """How much each class's query attends to each place of the image: `A[class, patch]`, upsampled.

    Args:
      attention: `[*b, n, n]` of a mask transformer, the heads among the leading axes. Tokens are
        the patches, row by row, and the classes.
      shape: (h, w) of the image.
      patch_size: side of the patches, in pixels.

    Returns:
      `[*b, classes, h, w]`, at least float32: bilinear between the patches' centres.

    Raises:
      ValueError: if there are not more queries and keys than patches of such an image.

    Example:
      >>> attention = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
      >>> class_query_maps(attention, (1, 2), patch_size=1)
      Array([[[0.25, 0.5 ]]], dtype=float32)

    References:
      Strudel et al., "Segmenter: transformer for semantic segmentation", 2021, section 3.2.
    """
    rows, columns = _grid(shape, patch_size)
    patches = rows * columns
    if min(attention.shape[-2:]) <= patches:
        raise ValueError(
            f"attention: expected shape classes after those of , got {attention.shape}"
            f"{rows} * {columns} patches"
        )
    return _patch_maps(attention[..., patches:, :patches], shape, patch_size)


def attention_rollout(
    attention: Sequence[Float[Array, "*b heads n n"]],
) -> Float[jax.Array, "*b n n"]:
    """How much of each input token each output token is made of: `Π_l (½ mean_heads A_l + ½ I)`.

    The product runs from the last block on the left to the first on the right; the identity is the
    shortcut beside each attention.

    Args:
      attention: `[*b, heads, n, n]` of each block, from the first to the last.

    Returns:
      `[*b, n, n]`, at least float32; rows sum to 1 as those of the attention do.

    Raises:
      ValueError: if there is no block.

    Example:
      >>> attention_rollout([jnp.array([[[0.0, 1.0], [0.0, 1.0]]])] * 2)
      Array([[0.25, 0.75],
             [0.  , 1.  ]], dtype=float32)

    References:
      Abnar and Zuidema, "Quantifying attention flow in transformers", 2020, section 3.
    """
    if not attention:
        raise ValueError("attention has no blocks; due is at least one")
    dtype = accumulation_dtype(*attention)
    rollout = jnp.eye(attention[0].shape[-1], dtype=dtype)
    for weights in attention:
        mixed = jnp.mean(weights.astype(dtype), axis=-3)
        rollout = (jnp.matmul(mixed, rollout, precision="highest") + rollout) / 2
    return rollout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Correlation:
    """How two maps go together.

    Attributes:
      pearson: the linear correlation, a scalar in −1..1.
      spearman: that of the ranks.
      pearson_p_value: the share of permutations with as large a correlation of either sign.
      spearman_p_value: likewise, of the ranks.
    """

    pearson: Float[Array, ""]
    spearman: Float[Array, ""]
    pearson_p_value: Float[Array, ""]
    spearman_p_value: Float[Array, ""]


def attention_error_correlation(
    key: jax.Array,
    attention: Float[Array, "h w"],
    error: Num[Array, "h w"] | Bool[Array, "h w"],
    *,
    where: Bool[Array, "h w"] | None = None,
    permutations: int = 999,
) -> Correlation:
    """Whether attention tells where a model errs: their correlation, and a permutation test of it.

    `r = Σ (a − ā)(e − ē) / √(Σ (a − ā)² Σ (e − ē)²)` over the valid pixels; Spearman's is that of
    the ranks, of which equals share the mean. With `b` of `m` permutations as far from 0 as the
    maps themselves, `p = (b + 1) / (m + 1)`. A permutation moves the error by random numbers of
    rows and columns around the border: to exchange single pixels would find significance in any
    two smooth maps, whose neighbours are alike.

    Args:
      key: of the shifts.
      attention: `[h, w]`, such as one of `class_token_maps`.
      error: `[h, w]`, of each pixel: its loss, or whether it is wrong.
      where: `[h, w]`, False for void pixels, whose values may be anything.
      permutations: `m`. A shifted pixel counts where it is valid before and after.

    Returns:
      The correlations, 0 with gradient 0 where a map is constant, and the p-values. Differentiable
      by Pearson's alone.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> attention = jnp.arange(12.0).reshape(3, 4)
      >>> result = attention_error_correlation(jax.random.key(0), attention, attention**2)
      >>> print(f"{result.pearson:.2f} {result.spearman:.2f}")
      0.96 1.00

    References:
      Phipson and Smyth, "Permutation p-values should never be zero", 2010; shifts: Lotwick
      and Silverman, "Methods for analysing spatial processes of several types of points", 1982.
    """
    if attention.ndim != 2 or attention.shape != error.shape:
        raise ValueError(
            f"attention has shape {attention.shape} and error {error.shape}; due is [h, w] twice"
        )
    height, width = attention.shape
    valid = broadcast_where(where, attention.shape).ravel()
    dtype = accumulation_dtype(attention, error)
    a, e = (_with_ranks(jnp.asarray(x, dtype).ravel(), valid) for x in (attention, error))
    observed = _pearson(a, e, valid)

    def is_as_far(key):
        down, right = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
        rows, columns = (jnp.arange(height) + down) % height, (jnp.arange(width) + right) % width
        moved = (rows[:, None] * width + columns).ravel()
        r = _pearson(a, e[:, moved], valid & valid[moved])
        return jnp.abs(r) >= jnp.abs(observed) * (1 - 100 * jnp.finfo(dtype).eps)

    exceeding = jnp.sum(jax.lax.map(is_as_far, jax.random.split(key, permutations)), axis=0)
    p_values = ((exceeding + 1) / (permutations + 1)).astype(dtype)
    return Correlation(*observed, *p_values)


def _grid(shape: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches that cover an image."""
    if len(shape) != 2 or min(shape) < 1 or patch_size < 1:
        raise ValueError(f"shape is {shape} and patch_size {patch_size}; due are positive sizes")
    height, width = shape
    return -(-height // patch_size), -(-width // patch_size)


def _patch_maps(weights: Array, shape: tuple[int, int], patch_size: int) -> jax.Array:
    """Numbers of patches `[*b, n]` at the pixels."""
    rows, columns = _grid(shape, patch_size)
    weights = jnp.asarray(weights, accumulation_dtype(weights))
    weights = weights.reshape(*weights.shape[:-1], rows, columns, 1)
    maps = ops.resize(weights, (rows * patch_size, columns * patch_size))[..., 0]
    return maps[..., : shape[0], : shape[1]]


def _with_ranks(values: jax.Array, valid: jax.Array) -> jax.Array:
    """`[2, n]`: the values, and their ranks among the valid; equals share the mean of theirs."""
    ascending = jnp.sort(jnp.where(valid, values, jnp.inf))
    first, last = (jnp.searchsorted(ascending, values, side=side) for side in ("left", "right"))
    return jnp.where(valid, jnp.stack([values, ((first + last) / 2).astype(values.dtype)]), 0)


def _pearson(a: jax.Array, b: jax.Array, valid: jax.Array) -> jax.Array:
    """Of each row, the correlation: the cosine of what is left when the mean is taken off."""

    def centred(x):
        # From the least value first, so that of a constant nothing is left, not even rounding.
        least = jnp.min(jnp.where(valid, x, jnp.inf), axis=-1, keepdims=True)
        x = jnp.where(valid, x - jax.lax.stop_gradient(jnp.where(jnp.isinf(least), 0, least)), 0)
        mean = jnp.sum(x, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(valid), 1)
        return jnp.where(valid, x - mean, 0)

    return jax.vmap(lambda x, y: ops.cosine_similarity(x, y[None])[0])(centred(a), centred(b))
