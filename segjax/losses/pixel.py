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
    num_classes = logits.shape[-1]
    valid = broadcast_where(where, logits.shape[:-1])
    targets = _class_targets(labels, num_classes, valid)
    weights = jnp.ones(num_classes) if class_weights is None else jnp.asarray(class_weights)
    _check_class_weights(weights, num_classes)
    dtype = accumulation_dtype(logits, targets)
    logits = jnp.where(valid[..., None], logits.astype(dtype), 0)
    logits -= jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))

    def expected(values: jax.Array) -> jax.Array:
        """`Σ_c w_c ((1 − ε) y_c + ε/C) values_c`."""
        values = weights * values
        of_target = _weigh(targets, values)
        if not label_smoothing:
            return of_target
        return (1 - label_smoothing) * of_target + label_smoothing * jnp.mean(values, axis=-1)

    # −log softmax = log_normalizer − logits, summed apart: so no such array is ever stored.
    log_normalizer = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
    losses = expected(jnp.ones(num_classes, dtype)) * log_normalizer - expected(logits)
    return jnp.where(valid, losses, 0)


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
    num_classes = class_weights.size
    _check_class_weights(class_weights, num_classes)
    is_soft = jnp.issubdtype(labels.dtype, jnp.floating)
    valid = broadcast_where(where, labels.shape[:-1] if is_soft else labels.shape)
    targets = _class_targets(labels, num_classes, valid)
    weights = jnp.asarray(class_weights, accumulation_dtype(class_weights, targets))
    return jnp.where(valid, _weigh(targets, weights), 0)


def _class_targets(labels: Array, num_classes: int, valid: jax.Array) -> jax.Array:
    """Soft labels, or by comparison the one-hot of integer ones, which XLA fuses into every use."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        targets = labels[..., None] == jnp.arange(num_classes)
    elif jnp.issubdtype(labels.dtype, jnp.floating):
        targets = jnp.asarray(labels)
    else:
        raise TypeError(f"labels is {labels.dtype}; due is integer, or floating if soft")
    if targets.shape != (*valid.shape, num_classes):
        raise ValueError(
            f"labels has shape {labels.shape}; due is {valid.shape} of integers, or "
            f"{(*valid.shape, num_classes)} of soft labels"
        )
    return targets if targets.dtype == bool else jnp.where(valid[..., None], targets, 0)


def _weigh(targets: jax.Array, values: jax.Array) -> jax.Array:
    """`Σ_c y_c values_c`; a class that integer labels rule out may have any value, even −inf."""
    if targets.dtype == bool:
        return jnp.sum(jnp.where(targets, values, 0), axis=-1)
    return jnp.sum(targets.astype(values.dtype) * values, axis=-1)


def _check_class_weights(class_weights: Array, num_classes: int) -> None:
    if class_weights.shape != (num_classes,):
        raise ValueError(f"class_weights has shape {class_weights.shape}; due is ({num_classes},)")
