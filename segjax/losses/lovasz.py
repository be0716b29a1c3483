"""Lovász losses: the convex extension of the Jaccard loss of a set of pixels."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, Integer

from segjax.labels import valid_labels
from segjax.mapping import stable_argsort
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array

# What share of the pixels a sort makes room for: the smallest that holds all that matter.
_ROOMS = (1 / 8, 1 / 2, 1)


def lovasz_softmax_loss(
    probs: Float[Array, "*b c"],
    labels: Integer[Array, "*b"],
    *,
    classes: str = "present",
    bins: int | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, ""]:
    """The Lovász-softmax loss: the mean over classes of `Σ_i e_i g_i`.

    `e_i` is `1 − p_i` for a pixel of the class, else `p_i`. `g_i` is what pixel `i` adds to the
    Jaccard loss of the set of misclassified pixels when these join it in the order of falling
    errors, so `Σ_i e_i g_i` is the Jaccard loss itself where all errors are 0 or 1, and convex and
    piecewise linear between. Pixels of equal error share what they add together.

    Args:
      probs: `[*b, h, w, c]`, in 0..1. All of it is one set of pixels; `jax.vmap` makes one of each
        image.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      classes: "present" for the mean over the classes that the labels hold, or "all".
      bins: None for exact; else errors are ordered only by which of so many equal parts of 0..1
        they lie in, which is faster, and never more than `1/bins` below the exact value.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      A scalar in 0..1, at least float32; 0 if no class is counted.

    Raises:
      ValueError: if the shapes do not fit together, or `classes` or `bins` is unknown.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> float(lovasz_softmax_loss(jnp.array([[0.5, 0.5], [0.0, 1.0]]), jnp.array([0, 1])))
      0.375

    References:
      Berman et al., "The Lovász-softmax loss", 2018, eq. 8, 9 and 11, algorithm 1.
    """
    if probs.ndim < 1 or labels.shape != probs.shape[:-1]:
        raise ValueError(f"labels has shape {labels.shape}; due is {probs.shape[:-1]}")
    if classes not in ("present", "all"):
        raise ValueError(f'classes is {classes!r}; due is "present" or "all"')
    if bins is not None and bins < 1:
        raise ValueError(f"bins is {bins}; due is a positive number, or None")
    num_classes = probs.shape[-1]
    labels, valid = (x.ravel() for x in valid_labels(labels, num_classes, where=where))
    # A row for each class: sorting reads the pixels of one class at a time.
    probs = jnp.moveaxis(jnp.asarray(probs, accumulation_dtype(probs)), -1, 0)
    probs = jnp.where(valid, probs.reshape(num_classes, -1), 0)
    foreground = (labels == jnp.arange(num_classes)[:, None]) & valid
    errors = jnp.where(foreground, 1 - probs, probs)
    losses = jax.vmap(_extended_jaccard_loss, (0, 0, None, None))(errors, foreground, valid, bins)
    # The paper and segmentation_models_pytorch count the classes present, kornia all: there an
    # absent class costs its greatest probability.
    counted = foreground.any(-1) if classes == "present" else valid.any()
    counted = jnp.broadcast_to(counted, losses.shape)
    return safe_divide(jnp.sum(losses, where=counted), jnp.sum(counted))


def lovasz_hinge_loss(
    logits: Float[Array, "*b"],
    targets: Integer[Array, "*b"] | Bool[Array, "*b"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, ""]:
    """The Lovász hinge of a binary mask: `Σ_i e_i g_i`, of `e_i = max(0, 1 − x_i s_i)`, `s_i = ±1`.

    `g` is as in `lovasz_softmax_loss`.

    Args:
      logits: `[*b, h, w]`; all of it is one set of pixels.
      targets: boolean, or 0 and 1, others being void; the same shape.
      where: broadcasts to `logits`; False for void pixels, whose values may be anything.

    Returns:
      A scalar ≥ 0, at least float32; 0 if no pixel is valid.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `targets` is neither integer nor boolean, or `where` not boolean.

    Example:
      >>> float(lovasz_hinge_loss(jnp.array([0.0, -1.0]), jnp.array([1, 0])))
      1.0

    References:
      Berman et al., "The Lovász-softmax loss", 2018, eq. 6 and 7.
    """
    if targets.shape != logits.shape:
        raise ValueError(f"targets has shape {targets.shape}; due is that of logits {logits.shape}")
    if targets.dtype == bool:
        valid = broadcast_where(where, logits.shape)
    else:
        targets, valid = valid_labels(targets, 2, where=where, name="targets")
    valid, foreground = valid.ravel(), (valid & (targets == 1)).ravel()
    logits = jnp.where(valid, logits.ravel().astype(accumulation_dtype(logits)), 0)
    errors = jnp.where(valid, jax.nn.relu(1 - jnp.where(foreground, logits, -logits)), 0)
    return _extended_jaccard_loss(errors, foreground, valid, None)


def _extended_jaccard_loss(
    errors: jax.Array, foreground: jax.Array, valid: jax.Array, bins: int | None
) -> jax.Array:
    """`Σ_i e_i g_i` of one set; where it is differentiable, `g` is constant and the gradient."""
    weigh = _exact_weights if bins is None else functools.partial(_binned_weights, bins)
    # One set after the other: several at once are no faster to sort, and take more memory.
    order_by = lax.stop_gradient(jnp.maximum(errors, 0))  # a softmax may round to above 1
    weights = sequential_vmap(weigh)(order_by, foreground, valid)
    return jnp.sum(errors * weights)


def _shares(total, foreground_through, background_before, background_through):
    """The `g` of foreground and of background pixels of some error.

    With `F` foreground and `B` background pixels wrong the Jaccard loss is `1 − (G − F)/(G + B)`,
    for `G` foreground pixels in `total`; its steps are written out so that nothing cancels. Of
    equal errors the foreground's come first, and `before` and `through` them so many are wrong.
    """
    before, through = (total + count for count in (background_before, background_through))
    of_foreground = 1 / jnp.maximum(before, 1)
    # Without foreground the loss is 1 as soon as the first pixels are wrong.
    right = jnp.where((total == 0) & (before == 0), 1, total - foreground_through)
    return of_foreground, right * of_foreground / jnp.maximum(through, 1)


def _binned_weights(bins, errors, foreground, valid):
    """The `g` of each pixel if errors in the same bin count as equal; bin 0 has the greatest."""
    index = jnp.clip(((1 - errors) * bins).astype(jnp.int32), 0, bins - 1)
    index = jnp.where(foreground, index, index + bins)
    counts = jnp.zeros(2 * bins, jnp.int32).at[index].add(valid, mode="promise_in_bounds")
    through = lax.associative_scan(jnp.add, counts.reshape(2, bins), axis=1)
    foreground_through, background_through = through
    before = background_through - counts[bins:]
    shares = _shares(foreground_through[-1], foreground_through, before, background_through)
    # Scattered into a table: else XLA divides again for every pixel that looks a share up.
    table = jnp.zeros(2 * bins).at[jnp.arange(2 * bins)].set(jnp.concatenate(shares))
    return jnp.where(valid, table.at[index].get(mode="promise_in_bounds"), 0)


def _exact_weights(errors, foreground, valid):
    """The `g` of each pixel.

    A background pixel below the least error of the foreground finds the Jaccard loss at 1 already,
    so its `g` is 0: only the others have to be sorted, few in a prediction that is mostly right.
    """
    least = jnp.min(errors, where=foreground, initial=jnp.inf)
    greatest = jnp.max(errors, where=valid, initial=0)
    matters = valid & (errors >= jnp.where(jnp.any(foreground), least, greatest))
    number = lax.associative_scan(jnp.add, matters.astype(jnp.int32))
    count, size = number[-1], errors.size

    def within(room, errors, foreground):
        target = jnp.where(matters, number - 1, room)
        pixel = jnp.full(room, size).at[target].set(jnp.arange(size), mode="drop")
        errors, foreground = (
            x.at[pixel].get(mode="fill", fill_value=0) for x in (errors, foreground)
        )
        weights = _sorted_weights(errors, foreground, count)
        return jnp.zeros(size, weights.dtype).at[pixel].set(weights, mode="drop")

    rooms = sorted({max(1, round(share * size)) for share in _ROOMS})
    fitting = jnp.sum(count > jnp.array(rooms[:-1], jnp.int32))
    return lax.switch(
        fitting, [functools.partial(within, room) for room in rooms], errors, foreground
    )


def _sorted_weights(errors, foreground, count):
    """The `g` of the first `count` pixels; the rest is of error 0 and no foreground."""
    order = stable_argsort(-errors, ties=~foreground)
    errors, foreground = errors[order], foreground[order]
    place = jnp.arange(errors.size)
    # Pixels of one error and kind stand together, from `start`, so many `alike`. They share
    # equally; the peers give each what its place in their sort yields, an unlike gradient.
    new = (errors[1:] != errors[:-1]) | (foreground[1:] != foreground[:-1])
    start = jnp.where(jnp.append(True, new), place, 0)
    foreground_through, start = lax.associative_scan(
        lambda a, b: (a[0] + b[0], jnp.maximum(a[1], b[1])), (jnp.int32(foreground), start)
    )
    alike = jnp.zeros_like(start).at[start].add(place < count)[start]
    before = jnp.where(foreground, place + 1, start) - foreground_through
    through = start + alike - foreground_through
    ours, others = _shares(foreground_through[-1], foreground_through, before, through)
    weights = jnp.where(foreground, ours, others)
    return jnp.zeros_like(weights).at[order].set(weights, unique_indices=True)
