"""Focal loss, variants of the cross-entropy for noisy labels, and online hard example mining."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Num

from segjax.labels import check_integer
from segjax.losses.pixel import binary_inputs, pixel_weights, softmax_cross_entropy
from segjax.numerics import broadcast_where, softplus_pair
from segjax.typing import Array


def sigmoid_focal_loss(
    logits: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    alpha: float | None = None,
    gamma: float = 2.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Binary focal loss of every pixel: `−α_t (1 − p_t)^γ log p_t`.

    `p_t` is `σ(x)` for `y = 1` and `1 − σ(x)` for `y = 0`, and `α_t = α y + (1 − α)(1 − y)`. For a
    soft target, `1 − p_t = (1 − y) σ(x) + y (1 − σ(x))`, and the cross-entropy replaces `−log p_t`.

    Args:
      logits: `x`, any shape: masks `[*b, h, w]`, or one for each class `[*b, h, w, c]`.
      targets: `y`, the same shape, in 0..1 or boolean.
      alpha: Weight `α` of positive pixels, in 0..1; None gives all pixels weight 1.
      gamma: Focusing exponent `γ`, at least 0; 0 gives the cross-entropy.
      where: Broadcasts to `logits`; False for void pixels, whose values may be anything.

    Returns:
      The shape of `logits`, in nats, at least float32; 0 where `where` is False.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.sigmoid_focal_loss(jnp.array([0.0, 9.0]), jnp.array([1, 0]), alpha=0.25).round(2)
      Array([0.04, 6.75], dtype=float32)

    References:
      Lin et al., "Focal loss for dense object detection", 2017, eq. 5.
    """
    logits, targets, valid = binary_inputs(logits, targets, where)
    positive, negative = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    # For soft targets this is torchvision's p_t, linear in y like the cross-entropy. MONAI, kornia
    # and segmentation_models_pytorch extend it in other ways; for hard targets all agree.
    wrong = (1 - targets) * positive + targets * negative  # 1 − p_t
    absent, present = softplus_pair(logits)
    losses = targets * present + (1 - targets) * absent
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
    """Multi-class focal loss of every pixel: `−w_y (1 − p_y)^γ log p_y`, `p = softmax(logits)`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `y`, `[*b, h, w]` in 0..c−1; others are void.
      gamma: Focusing exponent `γ`, at least 0; 0 gives the cross-entropy.
      class_weights: `[c]`, weights `w`; None gives all classes weight 1.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 for void pixels.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.softmax_focal_loss(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(2)
      Array([0.17], dtype=float32)

    References:
      Lin et al., "Focal loss for dense object detection", 2017, eq. 5.
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
    """Poly-1 loss of every pixel: `−log p_y + ε (1 − p_y)`, `p = softmax(logits)`.

    The cross-entropy is `Σ_j (1 − p_y)^j / j`; this loss gives its first term the weight `1 + ε`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `y`, `[*b, h, w]` in 0..c−1; others are void.
      epsilon: Additional weight `ε` of the first term, at least −1.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 for void pixels.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.poly_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(1)
      Array([1.2], dtype=float32)

    References:
      Leng et al., "PolyLoss: a polynomial expansion perspective of classification loss
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
    """Symmetric cross-entropy of every pixel, robust to noisy labels: `−α log p_y − β A (1 − p_y)`.

    The second term is the reverse cross-entropy `−Σ_c p_c log y_c`, where the finite number `A`
    replaces log 0. It is bounded, so wrong labels do not dominate.

    Args:
      logits: `[*b, h, w, c]`; `p` is their softmax.
      labels: integers `y`, `[*b, h, w]` in 0..c−1; others are void.
      alpha: Weight `α` of the cross-entropy.
      beta: Weight `β` of the reverse cross-entropy.
      log_zero: The value `A` of log 0, negative.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 for void pixels.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.symmetric_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(2)
      Array([2.07], dtype=float32)

    References:
      Wang et al., "Symmetric cross entropy for robust learning with noisy labels", 2019,
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
    """Online hard example mining (OHEM): marks the pixels with the greatest losses.

    The mean over them is `Average.of(losses, where=hard_pixels(losses, count=…))`. For the
    cross-entropy, the threshold `−log p` keeps pixels whose true class has a probability below `p`.

    Args:
      losses: Any shape; all pixels are one set.
      count: Number of pixels to keep at least, those with the greatest losses (fewer if fewer are
        valid); ties go to the first.
      threshold: Loss above which all pixels are kept.
      where: Broadcasts to `losses`; False for void pixels, which are never kept.

    Returns:
      Booleans of the shape of `losses`, without gradient.

    Raises:
      ValueError: If the shapes do not fit together, or neither `count` nor `threshold` is given.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.hard_pixels(jnp.array([0.1, 0.9, 0.5, 0.5]), count=2).astype(int)
      Array([0, 1, 1, 0], dtype=int32)

    References:
      Shrivastava et al., "Training region-based object detectors with online hard example
      mining", 2016, section 4.
    """
    if count is None and threshold is None:
        raise ValueError("count, threshold: expected at least one, got None, None")
    valid = broadcast_where(where, losses.shape)
    losses = jnp.asarray(losses)
    kept = jnp.zeros(losses.shape, bool) if threshold is None else losses > threshold
    if count is not None:
        flat = jnp.where(valid, jax.lax.stop_gradient(losses), -jnp.inf).ravel()
        worst = jax.lax.top_k(flat, min(count, flat.size))[1]
        kept |= jnp.zeros(flat.size, bool).at[worst].set(True).reshape(losses.shape)
    return kept & valid


def _negative_log_probs(logits: Array, labels: Array, where: Array | None) -> jax.Array:
    """`−log p_y` of every pixel; 0 for void pixels."""
    check_integer(labels)
    return softmax_cross_entropy(logits, labels, where=where)


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """`base ** exponent` for both ≥ 0, with gradient 0 where `base` is 0."""
    if exponent == 0:
        return jnp.ones_like(base)
    # An unguarded power has the gradient NaN at 0 for γ < 1, as in the focal losses of torchvision,
    # segmentation_models_pytorch and MONAI.
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1) ** exponent, 0)
