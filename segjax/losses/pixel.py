"""Losses of one number per pixel."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Num

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


def sigmoid_cross_entropy(
    logits: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    pos_weight: float | Float[Array, "..."] | None = None,
    label_smoothing: float = 0.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The binary cross-entropy of every pixel: `−w y log σ(x) − (1 − y) log(1 − σ(x))`.

    With label smoothing `ε` the target is `(1 − ε) y + ε/2` instead of `y`.

    Args:
      logits: `x`, any shape: a mask `[*b, h, w]`, or one a class `[*b, h, w, c]`.
      targets: `y` in 0..1 or boolean, the same shape.
      pos_weight: `w`, broadcasts to `logits`, so `[c]` has one for each class; None is 1.
      label_smoothing: `ε`, in 0..1.
      where: broadcasts to `logits`; False for void pixels, whose values may be anything.

    Returns:
      The shape of `logits`, in nats, at least float32; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> sigmoid_cross_entropy(jnp.array([0.0, 0.0]), jnp.array([1, 0]), pos_weight=2.0)
      Array([1.3862944, 0.6931472], dtype=float32)

    Source: Bishop, "Pattern recognition and machine learning", 2006, eq. 4.90.
    """
    logits, targets, valid = _binary(logits, targets, where)
    targets = (1 - label_smoothing) * targets + label_smoothing / 2
    positive = targets if pos_weight is None else pos_weight * targets
    losses = positive * jax.nn.softplus(-logits) + (1 - targets) * jax.nn.softplus(logits)
    return jnp.where(valid, losses, 0)


def sigmoid_focal_loss(
    logits: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    alpha: float | None = None,
    gamma: float = 2.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The binary focal loss of every pixel: `−α_t (1 − p_t)^γ log p_t`.

    `p_t` is the probability of the right answer, `σ(x)` for `y = 1` and `1 − σ(x)` for `y = 0`;
    between them, as for a soft target `y`, `1 − p_t = (1 − y) σ(x) + y (1 − σ(x))`, and `−log p_t`
    stands for the cross-entropy. `α_t = α y + (1 − α)(1 − y)`.

    Args:
      logits: `x`, any shape: a mask `[*b, h, w]`, or one a class `[*b, h, w, c]`.
      targets: `y` in 0..1 or boolean, the same shape.
      alpha: the weight of positive pixels, in 0..1; None weighs all pixels 1.
      gamma: `γ` ≥ 0; 0 gives the cross-entropy.
      where: broadcasts to `logits`; False for void pixels, whose values may be anything.

    Returns:
      The shape of `logits`, in nats, at least float32; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> sigmoid_focal_loss(jnp.array([0.0, 9.0]), jnp.array([1, 0]), alpha=0.25)
      Array([0.0433217, 6.7484264], dtype=float32)

    Source: Lin et al., "Focal loss for dense object detection", 2017, eq. 5.
    """
    logits, targets, valid = _binary(logits, targets, where)
    positive, negative = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    wrong = (1 - targets) * positive + targets * negative  # 1 − p_t
    losses = targets * jax.nn.softplus(-logits) + (1 - targets) * jax.nn.softplus(logits)
    losses *= _power(wrong, gamma)
    if alpha is not None:
        losses *= alpha * targets + (1 - alpha) * (1 - targets)
    return jnp.where(valid, losses, 0)


def softmax_focal_loss(
    logits: Float[Array, "*b c"],
    labels: Integer[Array, "*b"],
    *,
    gamma: float = 2.0,
    class_weights: Float[Array, " c"] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The focal loss of every pixel: `−w_y (1 − p_y)^γ log p_y`, `p = softmax(logits)`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: `y`, integers `[*b, h, w]` in 0..c−1.
      gamma: `γ` ≥ 0; 0 gives the cross-entropy.
      class_weights: `w`, `[c]`; None weighs all classes 1.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> softmax_focal_loss(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      Array([0.1732868], dtype=float32)

    Source: Lin et al., "Focal loss for dense object detection", 2017, eq. 5.
    """
    losses = _negative_log_probs(logits, labels, where)
    losses *= _power(-jnp.expm1(-losses), gamma)
    if class_weights is None:
        return losses
    return losses * pixel_weights(labels, class_weights, where=where)


def poly_cross_entropy(
    logits: Float[Array, "*b c"],
    labels: Integer[Array, "*b"],
    *,
    epsilon: float = 1.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The Poly-1 loss of every pixel: `−log p_y + ε (1 − p_y)`, `p = softmax(logits)`.

    The cross-entropy is `Σ_j (1 − p_y)^j / j`; this weighs its first term `1 + ε`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: `y`, integers `[*b, h, w]` in 0..c−1.
      epsilon: `ε` ≥ −1.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> poly_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      Array([1.1931472], dtype=float32)

    Source: Leng et al., "PolyLoss: a polynomial expansion perspective of classification loss
      functions", 2022, eq. 4.
    """
    losses = _negative_log_probs(logits, labels, where)
    return losses - epsilon * jnp.expm1(-losses)


def symmetric_cross_entropy(
    logits: Float[Array, "*b c"],
    labels: Integer[Array, "*b"],
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The symmetric cross-entropy of every pixel: `−α log p_y − β A (1 − p_y)`.

    The second term is the cross-entropy with prediction and label exchanged, `−Σ_c p_c log y_c`,
    where `A` stands for log 0: bounded, so that wrong labels do not dominate.

    Args:
      logits: `[*b, h, w, c]`; `p` is their softmax.
      labels: `y`, integers `[*b, h, w]` in 0..c−1.
      alpha: the weight of the cross-entropy.
      beta: the weight of the reverse cross-entropy.
      log_zero: `A` < 0.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> symmetric_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      Array([2.0693147], dtype=float32)

    Source: Wang et al., "Symmetric cross entropy for robust learning with noisy labels", 2019,
      eq. 5 to 7.
    """
    losses = _negative_log_probs(logits, labels, where)
    return alpha * losses + beta * log_zero * jnp.expm1(-losses)


def hard_pixels(
    losses: Float[Array, "*b"],
    *,
    count: int | None = None,
    threshold: float | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Bool[jax.Array, "*b"]:
    """The pixels that online hard example mining keeps: the `count` worst, and all above a loss.

    `Average.of(losses, where=hard_pixels(losses, count=…))` is then the mean over them. A threshold
    of `−log p` keeps the pixels whose right class has a probability under `p`.

    Args:
      losses: any shape; all of it is one set of pixels.
      count: how many pixels are kept at least (fewer if fewer are valid); of equal losses those
        that stand first.
      threshold: pixels with a greater loss are kept, however many.
      where: broadcasts to `losses`; False for void pixels, which are never kept.

    Returns:
      The shape of `losses`; nothing is differentiated through it.

    Raises:
      ValueError: if the shapes do not fit together, or neither `count` nor `threshold` is given.
      TypeError: if `where` is not boolean.

    Example:
      >>> hard_pixels(jnp.array([0.1, 0.9, 0.5, 0.5]), count=2).astype(int)
      Array([0, 1, 1, 0], dtype=int32)

    Source: Shrivastava et al., "Training region-based object detectors with online hard example
      mining", 2016, section 4.
    """
    if count is None and threshold is None:
        raise ValueError("count and threshold are both None; due is at least one of them")
    valid = broadcast_where(where, losses.shape)
    kept = jnp.zeros(losses.shape, bool) if threshold is None else losses > threshold
    if count is not None:
        flat = jnp.where(valid, jax.lax.stop_gradient(losses), -jnp.inf).ravel()
        worst = jax.lax.top_k(flat, min(count, flat.size))[1]
        kept |= jnp.zeros(flat.size, bool).at[worst].set(True).reshape(losses.shape)
    return kept & valid


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


def _binary(
    logits: Array, targets: Array, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits and targets in the accumulation dtype, 0 in void, and which pixels are valid."""
    if targets.shape != logits.shape:
        raise ValueError(f"targets has shape {targets.shape}; due is that of logits {logits.shape}")
    valid = broadcast_where(where, logits.shape)
    dtype = accumulation_dtype(logits, targets)
    logits, targets = (jnp.where(valid, x.astype(dtype), 0) for x in (logits, targets))
    return logits, targets, valid


def _negative_log_probs(logits: Array, labels: Array, where: Array | None) -> jax.Array:
    """`−log p_y` of every pixel; 0 in void."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels is {labels.dtype}; due is integer")
    return softmax_cross_entropy(logits, labels, where=where)


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """`base ** exponent` for both ≥ 0, with gradient 0 where `base` is 0."""
    if exponent == 0:
        return jnp.ones_like(base)
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1) ** exponent, 0)


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
