"""Cross-entropies, one number per pixel, and the weights of a weighted mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Num

from segjax.labels import check_integer, valid_labels
from segjax.numerics import accumulation_dtype, broadcast_where, softplus_pair
from segjax.typing import Array


def softmax_cross_entropy(
    logits: Float[Array, "*b c"],
    labels: Integer[Array, "*b"] | Float[Array, "*b c"],
    *,
    class_weights: Float[Array, " c"] | None = None,
    label_smoothing: float = 0.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Softmax cross-entropy of every pixel: `−Σ_c w_c ((1 − ε) y_c + ε/C) log softmax(logits)_c`.

    `y` is one-hot for integer labels, `w` are the class weights, `ε` is the label smoothing. The
    weighted mean is the sum of the result divided by the sum of `pixel_weights`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `[*b, h, w]` in 0..c−1, others being void; or probabilities `[*b, h, w, c]`.
      class_weights: `[c]`; None gives all classes weight 1.
      label_smoothing: Fraction `ε` of every label that is spread over all classes, in 0..1.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose labels may be anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 for void pixels. A logit of −inf excludes its class
      from pixels with another integer label.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `labels` is neither integer nor floating, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.softmax_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(2)
      Array([0.69], dtype=float32)

    References:
      Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016,
      section 7 (label smoothing).
    """
    if logits.ndim < 1:
        raise ValueError(f"logits: expected shape [*b, h, w, c], got {logits.shape}")
    num_classes = logits.shape[-1]
    valid = broadcast_where(where, logits.shape[:-1])
    is_soft = _check_labels(labels, (*valid.shape, num_classes))
    if not is_soft:
        labels, valid = valid_labels(labels, num_classes, where=valid)
    weights = jnp.ones(num_classes) if class_weights is None else jnp.asarray(class_weights)
    _check_class_weights(weights, num_classes)
    dtype = accumulation_dtype(logits, labels)
    logits, weights = jnp.asarray(logits, dtype), weights.astype(dtype)
    if is_soft or label_smoothing:  # all classes count, so void pixels must be cleared
        logits = jnp.where(valid[..., None], logits, 0)

    # −log softmax = log_normalizer − shifted logits; summed separately, it is never stored.
    maximum = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    # Masked here: masked within, the gradient is two loops for XLA, and takes twice as long.
    log_normalizer = jnp.where(valid, _log_normalizer(logits, maximum, valid), 0)
    if is_soft:
        weighted = weights * jnp.where(valid[..., None], labels, 0).astype(dtype)
        weight = jnp.sum(weighted, axis=-1)
        target_term = jnp.sum(weighted * (logits - maximum[..., None]), axis=-1)
    else:
        weight = weights[labels]
        target_term = weight * jnp.where(valid, _at_labels(logits, labels) - maximum, 0)
    losses = (1 - label_smoothing) * (weight * log_normalizer - target_term)
    if label_smoothing:
        mean_term = jnp.mean(weights * (logits - maximum[..., None]), axis=-1)
        losses += label_smoothing * (jnp.mean(weights) * log_normalizer - mean_term)
    return jnp.where(valid, losses, 0)


def sigmoid_cross_entropy(
    logits: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    pos_weight: float | Float[Array, "..."] | None = None,
    label_smoothing: float = 0.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Sigmoid (binary) cross-entropy of every pixel: `−w y log σ(x) − (1 − y) log(1 − σ(x))`.

    With label smoothing `ε`, the target `(1 − ε) y + ε/2` replaces `y`.

    Args:
      logits: `x`, any shape: masks `[*b, h, w]`, or one for each class `[*b, h, w, c]`.
      targets: `y`, the same shape, in 0..1 or boolean.
      pos_weight: Weight `w` of positive pixels, broadcasts to `logits` (`[c]` has one for each
        class); None for 1.
      label_smoothing: `ε`, in 0..1.
      where: Broadcasts to `logits`; False for void pixels, whose values may be anything.

    Returns:
      The shape of `logits`, in nats, at least float32; 0 where `where` is False.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> logits, targets = jnp.array([0.0, 0.0]), jnp.array([1, 0])
      >>> losses.sigmoid_cross_entropy(logits, targets, pos_weight=2.0).round(2)
      Array([1.39, 0.69], dtype=float32)

    References:
      Bishop, "Pattern recognition and machine learning", 2006, eq. 4.90.
    """
    logits, targets, valid = binary_inputs(logits, targets, where)
    # As in softmax_cross_entropy with two classes; the smooth_factor of
    # segmentation_models_pytorch is ε/2.
    targets = (1 - label_smoothing) * targets + label_smoothing / 2
    positive = targets if pos_weight is None else pos_weight * targets
    absent, present = softplus_pair(logits)
    losses = positive * present + (1 - targets) * absent
    return jnp.where(valid, losses, 0)


def pixel_weights(
    labels: Integer[Array, "*b"] | Float[Array, "*b c"],
    class_weights: Float[Array, " c"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Weight of every pixel in a mean weighted by class: `Σ_c w_c y_c`.

    Args:
      labels: integers `[*b, h, w]` in 0..c−1, others being void; or probabilities `[*b, h, w, c]`.
      class_weights: `[c]`.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose labels may be anything.

    Returns:
      `[*b, h, w]`, at least float32; 0 for void pixels.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `labels` is neither integer nor floating, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.pixel_weights(jnp.array([0, 1, 1]), jnp.array([1.0, 3.0]))
      Array([1., 3., 3.], dtype=float32)
    """
    _check_class_weights(class_weights, class_weights.size)
    weights = jnp.asarray(class_weights, accumulation_dtype(class_weights, labels))
    shape = (*labels.shape, weights.size)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        shape = labels.shape
    valid = broadcast_where(where, shape[:-1])
    if _check_labels(labels, (*valid.shape, weights.size)):
        return jnp.sum(weights * jnp.where(valid[..., None], labels, 0), axis=-1)
    labels, valid = valid_labels(labels, weights.size, where=valid)
    return jnp.where(valid, weights[labels], 0)


def binary_inputs(
    logits: Array, targets: Array, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits and targets in the accumulation dtype, 0 for void pixels; and the valid pixels."""
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets: expected the shape of logits, {logits.shape}, got {targets.shape}"
        )
    valid = broadcast_where(where, logits.shape)
    dtype = accumulation_dtype(logits, targets)
    logits, targets = (jnp.where(valid, x.astype(dtype), 0) for x in (logits, targets))
    return logits, targets, valid


@jax.custom_jvp
def _log_normalizer(logits: jax.Array, maximum: jax.Array, valid: jax.Array) -> jax.Array:
    """`log Σ_c exp(logits_c − maximum)` of every pixel, with a gradient only where valid."""
    return jnp.log(jnp.sum(jnp.exp(logits - maximum[..., None]), axis=-1))


# Written out so that the gradient computes the probabilities again instead of storing them: on a
# CPU another array of the size of the logits costs more time than the exponentials.
@_log_normalizer.defjvp
def _(primals, tangents):
    logits, maximum, valid = primals
    log_normalizer = _log_normalizer(*primals)
    probs = jnp.exp((logits - maximum[..., None]) - log_normalizer[..., None])
    probs = jnp.where(valid[..., None], probs, 0)
    return log_normalizer, jnp.sum(probs * tangents[0], axis=-1)


@jax.custom_jvp
def _at_labels(values: jax.Array, labels: jax.Array) -> jax.Array:
    """`values_y` of every pixel."""
    return jnp.take_along_axis(values, labels[..., None], axis=-1)[..., 0]


# Written out so that the gradient is a comparison with the labels instead of a scatter.
@_at_labels.defjvp
def _(primals, tangents):
    values, labels = primals
    chosen = labels[..., None] == jnp.arange(values.shape[-1])
    return _at_labels(values, labels), jnp.sum(jnp.where(chosen, tangents[0], 0), axis=-1)


def _check_labels(labels: Array, shape: tuple[int, ...]) -> bool:
    """Whether the labels are probabilities of `shape`, and not integers of `shape[:-1]`."""
    is_soft = jnp.issubdtype(labels.dtype, jnp.floating) and labels.shape != shape[:-1]
    if not is_soft:
        check_integer(labels)
    if labels.shape != (shape if is_soft else shape[:-1]):
        raise ValueError(
            f"labels: expected integers {shape[:-1]} or probabilities {shape}, got {labels.dtype} "
            f"{labels.shape}"
        )
    return is_soft


def _check_class_weights(class_weights: Array, num_classes: int) -> None:
    if class_weights.shape != (num_classes,):
        raise ValueError(
            f"class_weights: expected shape ({num_classes},), got {class_weights.shape}"
        )
