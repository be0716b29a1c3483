"""Multiple-instance learning: the likelihood that a bag of pixels contains its class.

At least one pixel of a bag belongs to the class, but it is not known which. The functions aggregate
the log-probabilities of the pixels; a void pixel has probability 0.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.labels import valid_labels
from segjax.numerics import accumulation_dtype, broadcast_where, log1mexp
from segjax.typing import Array

# Below e⁻²⁰ two terms of a series in p are exact, even in float64.
_TINY_LOG_PROB = -20.0


def noisy_or_log_likelihood(
    log_probs: Float[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Noisy-OR likelihood that some pixel of a bag is positive: `log(1 − Π_i (1 − p_i))`.

    With `1 − p = e^−λ` the rates add up, `λ = Σ_i λ_i`. Computed from `log λ`, it is accurate for
    all probabilities and bags of any size.

    Args:
      log_probs: Any shape, log-probabilities `log p` of the class, at most 0.
      axis: The axes of one bag, as in `jnp.sum`; None for all axes, which makes one bag.
      where: Broadcasts to `log_probs`; False for void pixels, whose values may be anything.

    Returns:
      `[...]`, at most 0: `log_probs`' shape without `axis`, at least float32. −inf with gradient 0
      where every `p` is 0, and 0 for a bag without valid pixels.
      The gradient is finite for all `p`; with respect to a `log p` it is the probability that this
      pixel alone is positive, given that the bag is.

    Raises:
      ValueError: If `where` does not broadcast to `log_probs`.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> jnp.exp(weak.noisy_or_log_likelihood(jnp.log(jnp.array([0.5, 0.5]))))
      Array(0.75, dtype=float32)

    References:
      Maron and Lozano-Pérez, "A framework for multiple-instance learning", 1998, section 2.
    """
    log_probs, size = _bag(log_probs, axis, where)
    log_rates = _log_rate(log_probs)
    log_likelihood = _log_prob(_log_sum_exp(log_rates, axis))
    # At p = 1 the rate is clipped and has no gradient; this term is 0 there, with the right slope.
    sure = log_probs > -jnp.finfo(log_probs.dtype).tiny
    others = jnp.exp(-jnp.sum(jnp.where(sure, 0, jnp.exp(log_rates)), axis))
    alone = jnp.where(jnp.sum(sure, axis) == 1, others, 0)
    log_likelihood += alone * jnp.sum(jnp.where(sure, log_probs, 0), axis)
    return jnp.where(size > 0, log_likelihood, 0)


def log_sum_likelihood(
    log_probs: Float[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Log-sum surrogate of the noisy-OR: `log Σ_i p_i`, an upper bound, exact to first order.

    It is not a likelihood, as it can exceed 0, up to the logarithm of the bag's size.

    Args:
      log_probs: Any shape, log-probabilities `log p` of the class, at most 0.
      axis: The axes of one bag, as in `jnp.sum`; None for all axes, which makes one bag.
      where: Broadcasts to `log_probs`; False for void pixels, whose values may be anything.

    Returns:
      `[...]`, `log_probs`' shape without `axis`, at least float32. −inf with gradient 0
      where every `p` is 0, and 0 for a bag without valid pixels.

    Raises:
      ValueError: If `where` does not broadcast to `log_probs`.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> jnp.exp(weak.log_sum_likelihood(jnp.log(jnp.array([0.5, 0.25]))))
      Array(0.75, dtype=float32)

    References:
      The union bound, `P(∪_i A_i) ≤ Σ_i P(A_i)`.
    """
    log_probs, size = _bag(log_probs, axis, where)
    return jnp.where(size > 0, _log_sum_exp(log_probs, axis), 0)


def max_log_likelihood(
    log_probs: Float[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Max surrogate of the noisy-OR: `max_i log p_i`, a lower bound.

    Args:
      log_probs: Any shape, log-probabilities `log p` of the class, at most 0.
      axis: The axes of one bag, as in `jnp.sum`; None for all axes, which makes one bag.
      where: Broadcasts to `log_probs`; False for void pixels, whose values may be anything.

    Returns:
      `[...]`, at most 0: `log_probs`' shape without `axis`, at least float32. −inf with gradient 0
      where every `p` is 0, and 0 for a bag without valid pixels. Tied
      pixels share the gradient.

    Raises:
      ValueError: If `where` does not broadcast to `log_probs`.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> jnp.exp(weak.max_log_likelihood(jnp.log(jnp.array([0.5, 0.25]))))
      Array(0.5, dtype=float32)

    References:
      Pathak et al., "Fully convolutional multi-class multiple instance learning", 2015,
      eq. 1.
    """
    log_probs, size = _bag(log_probs, axis, where)
    return jnp.where(size > 0, jnp.max(log_probs, axis, initial=-jnp.inf), 0)


def mean_log_likelihood(
    log_probs: Float[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Log-likelihood that a random pixel of the bag is positive: `log (1/n Σ_i p_i)`.

    Args:
      log_probs: Any shape, log-probabilities `log p` of the class, at most 0.
      axis: The axes of one bag, as in `jnp.sum`; None for all axes, which makes one bag.
      where: Broadcasts to `log_probs`; False for void pixels, whose values may be anything.

    Returns:
      `[...]`, at most 0: `log_probs`' shape without `axis`, at least float32. −inf with gradient 0
      where every `p` is 0, and 0 for a bag without valid pixels.

    Raises:
      ValueError: If `where` does not broadcast to `log_probs`.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> jnp.exp(weak.mean_log_likelihood(jnp.log(jnp.array([0.5, 0.25]))))
      Array(0.375, dtype=float32)

    References:
      Pinheiro and Collobert, "From image-level to pixel-level labeling with convolutional
      networks", 2015, section 3.2 (average aggregation).
    """
    return log_sum_exp_pooling(log_probs, sharpness=1.0, axis=axis, where=where)


def log_sum_exp_pooling(
    scores: Float[Array, "*b"],
    *,
    sharpness: float = 5.0,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Log-sum-exp pooling, between mean and maximum: `1/r log(1/n Σ_i exp(r s_i))`.

    For log-probabilities it is the logarithm of their power mean, `(1/n Σ_i p_i^r)^(1/r)`: the
    mean for `r = 1`, and the maximum for `r → ∞`. For logits it is the paper's image-level score.

    Args:
      scores: Any shape, log-probabilities or logits.
      sharpness: `r`, positive.
      axis: The axes of one bag, as in `jnp.sum`; None for all axes, which makes one bag.
      where: Broadcasts to `scores`; False for void pixels, whose values may be anything.

    Returns:
      `[...]`, `scores`' shape without `axis`, at least float32. −inf with gradient 0 where every
      score is −inf, and 0 for a bag without valid pixels.

    Raises:
      ValueError: If `sharpness` is not positive or `where` does not broadcast to `scores`.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> scores = jnp.array([0.0, 1.0])
      >>> round(float(weak.log_sum_exp_pooling(scores, sharpness=0.01)), 3)
      0.501
      >>> round(float(weak.log_sum_exp_pooling(scores, sharpness=100.0)), 3)
      0.993

    References:
      Pinheiro and Collobert, "From image-level to pixel-level labeling with convolutional
      networks", 2015, eq. 1.
    """
    if sharpness <= 0:
        raise ValueError(f"sharpness: expected a positive number, got {sharpness}")
    scores, size = _bag(scores, axis, where)
    pooled = (_log_sum_exp(sharpness * scores, axis) - jnp.log(jnp.maximum(size, 1))) / sharpness
    return jnp.where(size > 0, pooled, 0)


_LIKELIHOODS: dict[str, Callable] = {
    "noisy_or": noisy_or_log_likelihood,
    "log_sum": log_sum_likelihood,
    "max": max_log_likelihood,
    "mean": mean_log_likelihood,
    "log_sum_exp": log_sum_exp_pooling,
}


def point_mil_loss(
    logits: Float[Array, "h w c"],
    points: Float[Array, "n 2"],
    labels: Integer[Array, " n"],
    *,
    radius: float,
    aggregate: str = "noisy_or",
    where: Bool[Array, " n"] | None = None,
    valid_pixels: Bool[Array, "h w"] | None = None,
) -> Float[jax.Array, " n"]:
    """Multiple-instance loss of annotated points: `−log P(some pixel near x_j is of class y_j)`.

    The bag of a point contains the pixels whose centres lie within `radius` of it, and the pixel
    that contains the point. At radius 0 the loss is the cross-entropy at the points.

    Args:
      logits: `[h, w, c]`, for one image.
      points: `[n, 2]`, (x, y) in continuous pixels.
      labels: integers `[n]` in 0..c−1, the classes of the points; points of other classes are
        ignored.
      radius: Radius of a bag in pixels, at least 0, static.
      aggregate: Likelihood of a bag: "noisy_or", "log_sum", "max", "mean" or "log_sum_exp".
      where: `[n]`, False for points to ignore, whose values may be anything.
      valid_pixels: `[h, w]`, False for void pixels, which are in no bag and whose logits may be
        anything.

    Returns:
      `[n]` in nats, at least float32; 0 for a point that is ignored or has no pixel in the image.
      With "log_sum" it may be negative.

    Raises:
      ValueError: If the shapes do not fit together, `radius` is negative or `aggregate` unknown.
      TypeError: If `labels` is not integer, or `where` or `valid_pixels` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> logits = jnp.zeros((3, 3, 2))
      >>> jnp.exp(-weak.point_mil_loss(logits, jnp.array([[1.5, 1.5]]), jnp.array([1]), radius=1.0))
      Array([0.96875], dtype=float32)

    References:
      The noisy-OR of Maron and Lozano-Pérez, "A framework for multiple-instance learning",
      1998, with the points of Bearman et al., "What's the point", 2016.
    """
    if logits.ndim != 3:
        raise ValueError(f"logits: expected shape [h, w, c], got {logits.shape}")
    if labels.ndim != 1 or points.shape != (len(labels), 2):
        raise ValueError(
            f"points, labels: expected shapes [n, 2], [n], got {points.shape}, {labels.shape}"
        )
    if radius < 0:
        raise ValueError(f"radius: expected at least 0, got {radius}")
    if aggregate not in _LIKELIHOODS:
        raise ValueError(f"aggregate: expected one of {', '.join(_LIKELIHOODS)}, got {aggregate!r}")
    labels, counts = valid_labels(labels, logits.shape[-1], where=where)
    valid = broadcast_where(valid_pixels, logits.shape[:2], name="valid_pixels")
    points = jnp.where(counts[:, None], points, 0)

    rows, cols, member = _bag_pixels(points, radius, logits.shape[:2])
    member &= valid[rows, cols] & counts[:, None]
    bag_logits = logits.astype(accumulation_dtype(logits))[rows, cols]
    log_probs = jax.nn.log_softmax(jnp.where(member[..., None], bag_logits, 0))
    log_probs = jnp.take_along_axis(log_probs, labels[:, None, None], axis=-1)[..., 0]
    return -_LIKELIHOODS[aggregate](log_probs, axis=-1, where=member)


def _bag_pixels(
    points: jax.Array, radius: float, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows, columns and membership `[n, k]` of the pixels in a square window around each point."""
    reach = math.floor(radius + 0.5)
    offsets = jnp.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, 1, -1)
    home = jnp.floor(points[:, ::-1]).astype(jnp.int32).T[..., None]
    pixels = home + offsets
    distance = pixels + 0.5 - points[:, ::-1].T[..., None]
    near = jnp.sum(distance**2, axis=0) <= radius**2
    limits = jnp.array(shape)[:, None, None]
    inside = jnp.all((pixels >= 0) & (pixels < limits), axis=0)
    rows, cols = jnp.clip(pixels, 0, limits - 1)
    return rows, cols, inside & (near | jnp.all(offsets == 0, axis=0))


def _bag(
    log_probs: Array, axis: int | Sequence[int] | None, where: Array | None
) -> tuple[jax.Array, jax.Array]:
    """The log-probabilities, −inf for void pixels; and the number of valid pixels in each bag."""
    valid = broadcast_where(where, log_probs.shape)
    log_probs = jnp.where(valid, log_probs.astype(accumulation_dtype(log_probs)), -jnp.inf)
    return log_probs, jnp.sum(valid, axis)


def _log_sum_exp(values: jax.Array, axis: int | Sequence[int] | None) -> jax.Array:
    """`log Σ exp`; where all values are −inf, the gradient is 0, unlike that of JAX's, NaN."""
    peak = jax.lax.stop_gradient(jnp.max(values, axis, keepdims=True, initial=-jnp.inf))
    peak = jnp.where(jnp.isfinite(peak), peak, 0)
    total = jnp.sum(jnp.exp(values - peak), axis)
    log_total = jnp.log(jnp.where(total > 0, total, 1)) + peak.reshape(total.shape)
    return jnp.where(total > 0, log_total, -jnp.inf)


def _log_rate(log_p: jax.Array) -> jax.Array:
    """`log λ` with `λ = −log(1 − p)`, by `λ = p + p²/2 + …` where `p` is tiny."""
    tiny = log_p < _TINY_LOG_PROB
    series = log_p + 0.5 * jnp.exp(jnp.where(tiny, log_p, _TINY_LOG_PROB))
    return jnp.where(tiny, series, jnp.log(-log1mexp(jnp.where(tiny, -1, log_p))))


def _log_prob(log_rate: jax.Array) -> jax.Array:
    """`log p` with `p = 1 − e^−λ`, by `p = λ − λ²/2 + …` where `λ` is tiny."""
    tiny = log_rate < _TINY_LOG_PROB
    series = log_rate - 0.5 * jnp.exp(jnp.where(tiny, log_rate, _TINY_LOG_PROB))
    return jnp.where(tiny, series, log1mexp(-jnp.exp(jnp.where(tiny, 0, log_rate))))
