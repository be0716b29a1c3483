"""Losses of one number per pixel."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.numerics import accumulation_dtype, broadcast_where
from segjax.typing import Array


def softmax_cross_entropy(
    logits: Float[Array, "*b c"],
    labels: Integer[Array, "*b"] | Float[Array, "*b c"],
    *,
    class_weights: Float[Array, " c"] | None = None,
    label_smoothing: float = 0.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The cross-entropy of every pixel: `−Σ_c w_c ((1 − ε) y_c + ε/C) log softmax(logits)_c`.

    `y` is one-hot for integer labels, `w` the class weights, `ε` the label smoothing. The weighted
    mean of a batch is the sum of the result over the sum of `pixel_weights`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `[*b, h, w]` in 0..c−1, or soft ones `[*b, h, w, c]`, probabilities.
      class_weights: `[c]`; None weighs all classes 1.
      label_smoothing: the share of every label that is spread over all classes, in 0..1.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose labels may be anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 where `where` is False. A logit of −inf rules its
      class out, at no cost to the pixels that integer labels give another class.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is neither integer nor floating, or `where` not boolean.

    Example:
      >>> softmax_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      Array([0.6931472], dtype=float32)

    Source: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016,
      section 7 (label smoothing).
    """
    if logits.ndim < 1:
        raise ValueError(f"logits has shape {logits.shape}; due is [*b, h, w, c]")
    targets = _class_targets(labels, logits.shape[-1])
    if targets.shape != logits.shape:
        raise ValueError(
            f"labels has shape {labels.shape}; due for logits {logits.shape} is "
            f"{logits.shape[:-1]}, or {logits.shape} if soft"
        )
    valid = broadcast_where(where, logits.shape[:-1])
    dtype = accumulation_dtype(logits, targets)
    logits = jnp.where(valid[..., None], logits.astype(dtype), 0)
    targets = jnp.where(valid[..., None], targets.astype(dtype), 0)

    weights = (1 - label_smoothing) * targets + label_smoothing / logits.shape[-1]
    if class_weights is not None:
        _check_class_weights(class_weights, logits.shape[-1])
        weights = weights * class_weights
    log_probs = jax.nn.log_softmax(logits)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        log_probs = jnp.where(weights == 0, 0, log_probs)
    return jnp.where(valid, -jnp.sum(weights * log_probs, axis=-1), 0)


def pixel_weights(
    labels: Integer[Array, "*b"] | Float[Array, "*b c"],
    class_weights: Float[Array, " c"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The weight of every pixel in a mean weighted by class: `Σ_c w_c y_c`.

    Args:
      labels: integers `[*b, h, w]` in 0..c−1, or soft ones `[*b, h, w, c]`.
      class_weights: `[c]`.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose labels may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is neither integer nor floating, or `where` not boolean.

    Example:
      >>> pixel_weights(jnp.array([0, 1, 1]), jnp.array([1.0, 3.0]))
      Array([1., 3., 3.], dtype=float32)
    """
    _check_class_weights(class_weights, class_weights.size)
    targets = _class_targets(labels, class_weights.size)
    if targets.shape[-1:] != class_weights.shape:
        raise ValueError(f"labels has shape {labels.shape}; due is [..., {class_weights.size}]")
    weights = class_weights.astype(accumulation_dtype(class_weights, targets))
    valid = broadcast_where(where, targets.shape[:-1])
    return jnp.sum(jnp.where(valid[..., None], targets, 0) * weights, axis=-1)


def _class_targets(labels: Array, num_classes: int) -> jax.Array:
    """Soft labels as they are, integer ones by comparison: XLA never stores such a one-hot."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return labels[..., None] == jnp.arange(num_classes)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return jnp.asarray(labels)
    raise TypeError(f"labels is {labels.dtype}; due is an integer dtype, or a floating one if soft")


def _check_class_weights(class_weights: Array, num_classes: int) -> None:
    if class_weights.shape != (num_classes,):
        raise ValueError(f"class_weights has shape {class_weights.shape}; due is ({num_classes},)")
