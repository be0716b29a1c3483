"""Cross-entropies bent, so that hard pixels or wrong labels count for more or for less."""

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

    References:
      Lin et al., "Focal loss for dense object detection", 2017, eq. 5.
    """
    logits, targets, valid = binary_inputs(logits, targets, where)
    positive, negative = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    # For soft targets this is torchvision's p_t, linear in y as the cross-entropy is. MONAI, kornia
    # and segmentation_models_pytorch each extend it otherwise; for hard targets all agree.
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
    """The focal loss of every pixel: `−w_y (1 − p_y)^γ log p_y`, `p = softmax(logits)`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: `y`, integers `[*b, h, w]` in 0..c−1; others are void.
      gamma: `γ` ≥ 0; 0 gives the cross-entropy.
      class_weights: `w`, `[c]`; None weighs all classes 1.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 in void.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> softmax_focal_loss(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      Array([0.1732868], dtype=float32)

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
    """The Poly-1 loss of every pixel: `−log p_y + ε (1 − p_y)`, `p = softmax(logits)`.

    The cross-entropy is `Σ_j (1 − p_y)^j / j`; this weighs its first term `1 + ε`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: `y`, integers `[*b, h, w]` in 0..c−1; others are void.
      epsilon: `ε` ≥ −1.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 in void.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> poly_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      Array([1.1931472], dtype=float32)

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
    """The symmetric cross-entropy of every pixel: `−α log p_y − β A (1 − p_y)`.

    The second term is the cross-entropy with prediction and label exchanged, `−Σ_c p_c log y_c`,
    where `A` stands for log 0: bounded, so that wrong labels do not dominate.

    Args:
      logits: `[*b, h, w, c]`; `p` is their softmax.
      labels: `y`, integers `[*b, h, w]` in 0..c−1; others are void.
      alpha: the weight of the cross-entropy.
      beta: the weight of the reverse cross-entropy.
      log_zero: `A` < 0.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 in void.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> symmetric_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      Array([2.0693147], dtype=float32)

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

    References:
      Shrivastava et al., "Training region-based object detectors with online hard example
      mining", 2016, section 4.
    """
    if count is None and threshold is None:
        raise ValueError("count and threshold are both None; due is at least one of them")
    valid = broadcast_where(where, losses.shape)
    losses = jnp.asarray(losses)
    kept = jnp.zeros(losses.shape, bool) if threshold is None else losses > threshold
    if count is not None:
        flat = jnp.where(valid, jax.lax.stop_gradient(losses), -jnp.inf).ravel()
        worst = jax.lax.top_k(flat, min(count, flat.size))[1]
        kept |= jnp.zeros(flat.size, bool).at[worst].set(True).reshape(losses.shape)
    return kept & valid


def _negative_log_probs(logits: Array, labels: Array, where: Array | None) -> jax.Array:
    """`−log p_y` of every pixel; 0 in void."""
    check_integer(labels)
    return softmax_cross_entropy(logits, labels, where=where)


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """`base ** exponent` for both ≥ 0, with gradient 0 where `base` is 0."""
    if exponent == 0:
        return jnp.ones_like(base)
    # The loss is flat where a pixel is certain. Of an unguarded power the gradient is NaN there for
    # γ < 1, as of torchvision's, segmentation_models_pytorch's and MONAI's softmax focal loss.
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1) ** exponent, 0)
