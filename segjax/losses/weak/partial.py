"""Losses of partial labels: some labelled pixels (scribbles, points) or the tags of an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.labels import valid_labels
from segjax.losses.pixel import softmax_cross_entropy
from segjax.losses.weak.mil import (
    max_log_likelihood,
    mean_log_likelihood,
    noisy_or_log_likelihood,
)
from segjax.numerics import accumulation_dtype, broadcast_where, masked_sum, safe_divide
from segjax.typing import Array


def partial_cross_entropy(
    logits: Float[Array, "*b h w c"],
    labels: Integer[Array, "*b h w"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b c"]:
    """Mean cross-entropy over the labelled pixels of each class: `−1/n_c Σ_{y_i=c} log p_ic`.

    `softmax_cross_entropy` with the same `where` gives all labelled pixels the same weight, so that
    classes count by the length of their scribbles. Here a dot counts as much as a long stroke.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      where: Broadcasts to `[*b, h, w]`; True for labelled pixels; other labels may be anything.

    Returns:
      `[*b, c]` in nats, at least float32; 0 for a class without labelled pixels, which an average
      should leave out.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `labels` is not integer or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> logits = jnp.zeros((1, 4, 3))
      >>> labels = jnp.array([[0, 0, 0, 1]])
      >>> weak.partial_cross_entropy(logits, labels).round(2)
      Array([1.1, 1.1, 0. ], dtype=float32)

    References:
      Tang et al., "Normalized cut loss for weakly-supervised CNN segmentation", 2018, eq. 1,
      which does not balance the classes.
    """
    if logits.ndim < 3:
        raise ValueError(f"logits: expected shape [*b, h, w, c], got {logits.shape}")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels: expected shape {logits.shape[:-1]}, got {labels.shape}")
    labels, valid = valid_labels(labels, logits.shape[-1], where=where)
    losses = softmax_cross_entropy(logits, labels, where=valid)
    members = (labels[..., None] == jnp.arange(logits.shape[-1])) & valid[..., None]
    totals = jnp.sum(jnp.where(members, losses[..., None], 0), axis=(-3, -2))
    return safe_divide(totals, jnp.sum(members, axis=(-3, -2)))


def tag_loss(
    logits: Float[Array, "*b h w c"],
    tags: Bool[Array, "*b c"],
    *,
    pooling: str = "max",
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b c"]:
    """Loss of image tags: `−log P_c` for classes in the image, `−log(1 − P_c)` for others.

    `P_c` is the probability that the image contains class c: the maximum ("max") or mean ("mean")
    of the pixels' probabilities `p_ic`, or `1 − Π_i (1 − p_ic)` ("noisy_or"). With the last, the
    loss of an absent class is `−Σ_i log(1 − p_ic)`, a sum over all pixels.

    Args:
      logits: `[*b, h, w, c]`, of at least two classes.
      tags: boolean `[*b, c]`, True for the classes that the image contains.
      pooling: How `P_c` is computed: "max", "mean" or "noisy_or".
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose logits may be anything.

    Returns:
      `[*b, c]` in nats, at least float32; 0 for an image without valid pixels.

    Raises:
      ValueError: If the shapes do not fit together or `pooling` is unknown.
      TypeError: If `tags` or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> tags = jnp.array([True, True, False, False])
      >>> jnp.exp(-weak.tag_loss(jnp.zeros((2, 2, 4)), tags))
      Array([0.25, 0.25, 0.75, 0.75], dtype=float32)

    References:
      Pathak et al., "Fully convolutional multi-class multiple instance learning", 2015, for
      present classes; Saleh et al., "Built-in foreground/background prior for weakly-supervised
      semantic segmentation", 2016, eq. 5, for absent ones.
    """
    if logits.ndim < 3 or logits.shape[-1] < 2:
        raise ValueError(f"logits: expected shape [*b, h, w, c], c >= 2, got {logits.shape}")
    if tags.dtype != bool:
        raise TypeError(f"tags: expected bool, got {tags.dtype}")
    expected = (*logits.shape[:-3], logits.shape[-1])
    if tags.shape != expected:
        raise ValueError(f"tags: expected shape {expected}, got {tags.shape}")
    if pooling not in _POOLINGS:
        raise ValueError(f"pooling: expected one of {', '.join(_POOLINGS)}, got {pooling!r}")
    present, absent = _POOLINGS[pooling]
    valid = broadcast_where(where, logits.shape[:-1])[..., None]
    logits = jnp.where(valid, logits.astype(accumulation_dtype(logits)), 0)
    log_present = present(jax.nn.log_softmax(logits), axis=(-3, -2), where=valid)
    log_absent = absent(_log_complements(logits), axis=(-3, -2), where=valid)
    return -jnp.where(tags, log_present, log_absent)


def _min(log_complements: jax.Array, *, axis: tuple[int, ...], where: jax.Array) -> jax.Array:
    """`log(1 − max p)`."""
    least = jnp.min(jnp.where(where, log_complements, jnp.inf), axis)
    return jnp.where(jnp.any(where, axis), least, 0)


# How log P and log(1 − P) of an image are computed from log p and log(1 − p) of its pixels.
_POOLINGS: dict[str, tuple[Callable, Callable]] = {
    "max": (max_log_likelihood, _min),
    "mean": (mean_log_likelihood, mean_log_likelihood),
    "noisy_or": (noisy_or_log_likelihood, masked_sum),
}


def _log_complements(logits: jax.Array) -> jax.Array:
    """`log(1 − softmax)`, also exact for the most probable class, whose probability may round to 1.

    Its complement is the sum of the others, whose complements are at least a half.
    """
    log_probs = jax.nn.log_softmax(logits)
    winner = jnp.argmax(logits, axis=-1, keepdims=True) == jnp.arange(logits.shape[-1])
    winner_complement = jax.nn.logsumexp(log_probs, axis=-1, keepdims=True, where=~winner)
    other_complements = jnp.log1p(-jnp.exp(jnp.where(winner, -1, log_probs)))
    return jnp.where(winner, winner_complement, other_complements)
