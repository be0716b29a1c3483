"""Losses that align pixels with texts."""

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
    """The cross-entropy of each pixel's text: `−log softmax_c(cos(f, t_c) / τ)` at the label.

    Args:
      features: `[*b, h, w, d]`, of any length.
      text: `[c, d]`, the embedding of each class's text, of any length.
      labels: integers `[*b, h, w]` in 0..c−1, others being void, or soft ones `[*b, h, w, c]`,
        probabilities.
      temperature: `τ`, above 0; may be an array, a scalar, to be learned.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose features and labels may be
        anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 in void.

    Raises:
      ValueError: if the shapes do not fit together, or `temperature` is not above 0.
      TypeError: if `labels` is neither integer nor floating, or `where` not boolean.

    Example:
      >>> feature, text = jnp.array([1.0, 1.0]), jnp.eye(2)
      >>> float(pixel_text_cross_entropy(feature, text, jnp.array(0)))
      0.6931471824645996

    References:
      Radford et al., "Learning transferable visual models from natural language supervision",
      2021, section 2.3; for pixels Li et al., "Language-driven semantic segmentation", 2022,
      section 3.
    """
    if isinstance(temperature, int | float) and temperature <= 0:
        raise ValueError(f"temperature: expected above 0, got {temperature}")
    valid = broadcast_where(where, features.shape[:-1])
    if labels.shape == valid.shape:
        labels, valid = valid_labels(labels, len(text), where=valid)
    features = jnp.where(valid[..., None], features, 0)
    logits = cosine_similarity(features, text) / temperature
    return softmax_cross_entropy(logits, labels, where=valid)
