"""From similarities of patches and texts to labels: MaskCLIP's smoothing and denoising."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype
from segjax.ops.similarity import normalize
from segjax.typing import Array


def smooth_by_keys(
    probs: Float[Array, "*b rows columns c"],
    keys: Float[Array, "*b rows columns f"],
    *,
    threshold: float = 1.0,
) -> Float[jax.Array, "*b rows columns c"]:
    """Key smoothing: uncertain patches take the scores of patches with similar keys.

    `Σ_j cos(k_i, k_j) p_j` for patches i whose largest probability is below the threshold; the
    others keep theirs.

    Args:
      probs: `[*b, rows, columns, c]`, probabilities of the classes.
      keys: `[*b, rows, columns, f]`, keys of the last block, as `models.dense_clip` gives them.
      threshold: Largest probability below which a patch is uncertain, in 0..1; 1 smooths all.

    Returns:
      `[*b, rows, columns, c]`, at least float32: scores, which do not add up to 1 where smoothed.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> from segjax import inference
      >>> import jax.numpy as jnp
      >>> probs = jnp.array([[[0.6, 0.4], [0.1, 0.9]]])
      >>> inference.smooth_by_keys(probs, jnp.ones((1, 2, 1)), threshold=0.8).argmax(-1)
      Array([[1, 1]], dtype=int32)

    References:
      Zhou et al., "Extract free dense labels from CLIP", 2022, section 3.2.
    """
    if probs.shape[:-1] != keys.shape[:-1] or probs.ndim < 3:
        raise ValueError(f"keys: expected shape {(*probs.shape[:-1], 'f')}, got {keys.shape}")
    dtype = accumulation_dtype(probs, keys)
    flat = lambda x: jnp.asarray(x, dtype).reshape(*x.shape[:-3], -1, x.shape[-1])
    units, scores = normalize(flat(keys)), flat(probs)
    # The product with the classes first: no matrix of all pairs of patches is made.
    smoothed = units @ (jnp.swapaxes(units, -2, -1) @ scores)
    uncertain = jnp.max(scores, axis=-1, keepdims=True) < threshold
    return jnp.where(uncertain, smoothed, scores).reshape(probs.shape)


def drop_absent_classes(
    logits: Float[Array, "*b rows columns c"], *, threshold: float = 0.5
) -> Float[jax.Array, "*b rows columns c"]:
    """Prompt denoising: classes that no patch of the image is sure of get a logit of −100.

    Args:
      logits: `[*b, rows, columns, c]`.
      threshold: Largest probability over the image below which a class counts as absent, in 0..1.

    Returns:
      `[*b, rows, columns, c]`, at least float32.

    Raises:
      ValueError: if `logits` has fewer than three axes.

    Example:
      >>> from segjax import inference
      >>> import jax.numpy as jnp
      >>> inference.drop_absent_classes(jnp.array([[[4.0, 0.0], [3.0, 0.0]]])).tolist()
      [[[4.0, -100.0], [3.0, -100.0]]]

    References:
      Zhou et al., "Extract free dense labels from CLIP", 2022, section 3.2.
    """
    if logits.ndim < 3:
        raise ValueError(f"logits: expected shape [*b, rows, columns, c], got {logits.shape}")
    logits = jnp.asarray(logits).astype(accumulation_dtype(logits))
    most = jnp.max(jax.nn.softmax(logits), axis=(-3, -2), keepdims=True)
    return jnp.where(most < threshold, -100.0, logits)
