"""Losses that align pixel features with text embeddings."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.labels import valid_labels
from segjax.losses.pixel import softmax_cross_entropy
from segjax.numerics import broadcast_where
from segjax.ops.similarity import cosine_similarity
from segjax.typing import Array


def pixel_text_cross_entropy(
    features: Float[Array, "*b d"],
    text: Float[Array, "c d"],
    labels: Integer[Array, "*b"] | Float[Array, "*b c"],
    *,
    temperature: float | Float[Array, ""] = 0.07,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Cross-entropy over pixel-text similarities: `−log softmax_c(cos(f, t_c) / τ)` at the label.

    Args:
      features: `[*b, h, w, d]`, not necessarily of length 1.
      text: `[c, d]`, the text embedding of each class, not necessarily of length 1.
      labels: integers `[*b, h, w]` in 0..c−1, others being void; or probabilities `[*b, h, w, c]`.
      temperature: `τ`, positive; a scalar array if it is learned.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose features and labels may be
        anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 in void.

    Raises:
      ValueError: If the shapes do not fit together, or `temperature` is not positive.
      TypeError: If `labels` is neither integer nor floating, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> feature, text = jnp.array([1.0, 1.0]), jnp.eye(2)
      >>> round(float(losses.pixel_text_cross_entropy(feature, text, jnp.array(0))), 3)
      0.693

    References:
      Radford et al., "Learning transferable visual models from natural language supervision",
      2021, section 2.3; for pixels Li et al., "Language-driven semantic segmentation", 2022,
      section 3.
    """
    if isinstance(temperature, int | float) and temperature <= 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    valid = broadcast_where(where, features.shape[:-1])
    if labels.shape == valid.shape:
        labels, valid = valid_labels(labels, len(text), where=valid)
    features = jnp.where(valid[..., None], features, 0)
    logits = cosine_similarity(features, text) / temperature
    return softmax_cross_entropy(logits, labels, where=valid)
