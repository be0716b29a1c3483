"""Attention maps of vision transformers, and their correlation with errors."""

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
    """Attention of the class token to each pixel: `A[0, patch]`, upsampled.

    Args:
      attention: `[*b, n, n]`, with the heads among the leading axes; or a rollout of several
        blocks. Tokens are the class token, other tokens, and the patches row by row.
      shape: (h, w) of the image in pixels.
      patch_size: Side of the patches in pixels; the last row and column may extend beyond the
        image.
      prefix_tokens: Number of tokens before the patches, as `VisionTransformer.prefix_tokens`.

    Returns:
      `[*b, h, w]`, at least float32, interpolated bilinearly between the centres of patches.

    Raises:
      ValueError: If the number of keys does not match the tokens of such an image.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> attention = jnp.array([[0.25, 0.25, 0.5], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
      >>> analysis.class_token_maps(attention, (1, 4), patch_size=2)
      Array([[0.25  , 0.3125, 0.4375, 0.5   ]], dtype=float32)

    References:
      Caron et al., "Emerging properties in self-supervised vision transformers", 2021,
      section 4.
    """
    rows, columns = _grid(shape, patch_size)
    if attention.ndim < 2 or attention.shape[-1] != prefix_tokens + rows * columns:
        raise ValueError(
            f"attention: expected {prefix_tokens} + {rows} * {columns} keys, got shape "
            f"{attention.shape}"
        )
    return _patch_maps(attention[..., 0, prefix_tokens:], shape, patch_size)


def class_query_maps(
    attention: Float[Array, "*b queries keys"],
    shape: tuple[int, int],
    *,
    patch_size: int = 16,
) -> Float[jax.Array, "*b classes h w"]:
    """Attention of each class query to each pixel: `A[class, patch]`, upsampled.

    Args:
      attention: `[*b, n, n]` of a mask transformer, with the heads among the leading axes. Tokens
        are the patches row by row, and then the classes.
      shape: (h, w) of the image in pixels.
      patch_size: Side of the patches in pixels.

    Returns:
      `[*b, classes, h, w]`, at least float32, interpolated bilinearly between the centres of
      patches.

    Raises:
      ValueError: If there are not more queries and keys than patches of such an image.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> attention = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
      >>> analysis.class_query_maps(attention, (1, 2), patch_size=1)
      Array([[[0.25, 0.5 ]]], dtype=float32)

    References:
      Strudel et al., "Segmenter: transformer for semantic segmentation", 2021, section 3.2.
    """
    rows, columns = _grid(shape, patch_size)
    patches = rows * columns
    if attention.ndim < 2 or min(attention.shape[-2:]) <= patches:
        raise ValueError(
            f"attention: expected more than {rows} * {columns} queries and keys, got shape "
            f"{attention.shape}"
        )
    return _patch_maps(attention[..., patches:, :patches], shape, patch_size)


def attention_rollout(
    attention: Sequence[Float[Array, "*b heads n n"]],
) -> Float[jax.Array, "*b n n"]:
    """Attention rollout, the flow from input to output tokens: `Π_l (½ mean_heads A_l + ½ I)`.

    The factors run from the last block on the left to the first on the right; the identity stands
    for the skip connections.

    Args:
      attention: The attention of each block, `[*b, heads, n, n]`, from the first block to the last.

    Returns:
      `[*b, n, n]`, at least float32; rows sum to 1 like those of `attention`.

    Raises:
      ValueError: If there are no blocks, or their shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> analysis.attention_rollout([jnp.array([[[0.0, 1.0], [0.0, 1.0]]])] * 2)
      Array([[0.25, 0.75],
             [0.  , 1.  ]], dtype=float32)

    References:
      Abnar and Zuidema, "Quantifying attention flow in transformers", 2020, section 3.
    """
    if not attention:
        raise ValueError("attention: expected at least one block, got none")
    shapes = [weights.shape for weights in attention]
    if len(shapes[0]) < 3 or any(x[-2:] != (shapes[0][-1],) * 2 for x in shapes):
        raise ValueError(f"attention: expected shapes [*b, heads, n, n], got {shapes}")
    dtype = accumulation_dtype(*attention)
    rollout = jnp.eye(attention[0].shape[-1], dtype=dtype)
    for weights in attention:
        mixed = jnp.mean(weights.astype(dtype), axis=-3)
        rollout = (jnp.matmul(mixed, rollout, precision="highest") + rollout) / 2
    return rollout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Correlation:
    """Correlation of two maps, with p-values.

    Attributes:
      pearson: Pearson's linear correlation, a scalar in −1..1.
      spearman: Spearman's rank correlation, a scalar in −1..1.
      pearson_p_value: Fraction of permutations with at least as large a correlation of either sign.
      spearman_p_value: The same for the rank correlation.
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
    """Correlation of an attention map with the errors of a model, and a permutation test.

    `r = Σ (a − ā)(e − ē) / √(Σ (a − ā)² Σ (e − ē)²)` over the valid pixels; Spearman's correlation
    is that of the ranks, with mean ranks for ties. If `b` of `m` permutations have a correlation at
    least as far from 0, `p = (b + 1) / (m + 1)`. A permutation shifts the error map cyclically by
    random numbers of rows and columns: exchanging single pixels would find significance in any two
    smooth maps, whose neighbouring pixels are alike.

    Args:
      key: Random key of the shifts.
      attention: `[h, w]`, such as one of `class_token_maps`.
      error: `[h, w]`, the loss of each pixel, or whether it is wrong.
      where: `[h, w]`, False for void pixels, whose values may be anything.
      permutations: Number of permutations `m`. A shifted pixel counts if it is valid before and
        after.

    Returns:
      Correlations, 0 with gradient 0 if a map is constant, and p-values. Only Pearson's correlation
      is differentiable.

    Raises:
      ValueError: If the shapes differ.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> attention = jnp.arange(12.0).reshape(3, 4)
      >>> result = analysis.attention_error_correlation(jax.random.key(0), attention, attention**2)
      >>> print(f"{result.pearson:.2f} {result.spearman:.2f}")
      0.96 1.00

    References:
      Phipson and Smyth, "Permutation p-values should never be zero", 2010; shifts: Lotwick
      and Silverman, "Methods for analysing spatial processes of several types of points", 1982.
    """
    if attention.ndim != 2 or attention.shape != error.shape:
        raise ValueError(
            "attention, error: expected the same shape [h, w], got "
            f"{attention.shape}, {error.shape}"
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
        raise ValueError(f"shape, patch_size: expected positive sizes, got {shape}, {patch_size}")
    height, width = shape
    return -(-height // patch_size), -(-width // patch_size)


def _patch_maps(weights: Array, shape: tuple[int, int], patch_size: int) -> jax.Array:
    """Values of patches, `[*b, n]`, interpolated at the pixels."""
    rows, columns = _grid(shape, patch_size)
    weights = jnp.asarray(weights, accumulation_dtype(weights))
    weights = weights.reshape(*weights.shape[:-1], rows, columns, 1)
    maps = ops.resize(weights, (rows * patch_size, columns * patch_size))[..., 0]
    return maps[..., : shape[0], : shape[1]]


def _with_ranks(values: jax.Array, valid: jax.Array) -> jax.Array:
    """The values, and their ranks among the valid ones with mean ranks for ties, `[2, n]`."""
    ascending = jnp.sort(jnp.where(valid, values, jnp.inf))
    first, last = (jnp.searchsorted(ascending, values, side=side) for side in ("left", "right"))
    return jnp.where(valid, jnp.stack([values, ((first + last) / 2).astype(values.dtype)]), 0)


def _pearson(a: jax.Array, b: jax.Array, valid: jax.Array) -> jax.Array:
    """The correlation of each row: the cosine between the deviations from the mean."""

    def centred(x):
        # Subtracts the least value first, so that a constant becomes 0 without rounding errors.
        least = jnp.min(jnp.where(valid, x, jnp.inf), axis=-1, keepdims=True)
        x = jnp.where(valid, x - jax.lax.stop_gradient(jnp.where(jnp.isinf(least), 0, least)), 0)
        mean = jnp.sum(x, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(valid), 1)
        return jnp.where(valid, x - mean, 0)

    return jax.vmap(lambda x, y: ops.cosine_similarity(x, y[None])[0])(centred(a), centred(b))
