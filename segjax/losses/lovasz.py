"""Lovász losses: convex extensions of the Jaccard loss of a set of pixels."""

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

# Fractions of the pixels for which a sort has room; the smallest that suffices is used.
_ROOMS = (1 / 8, 1 / 2, 1)


def lovasz_softmax_loss(
    probs: Float[Array, "*b c"],
    labels: Integer[Array, "*b"],
    *,
    classes: str = "present",
    bins: int | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, ""]:
    """Lovász-softmax loss: the mean over classes of `Σ_i e_i g_i`.

    The error `e_i` is `1 − p_i` for a pixel of the class, else `p_i`. `g_i` is the increase of the
    Jaccard loss when pixel `i` is added to the set of wrong pixels, in the order of descending
    errors. So the loss equals the Jaccard loss if all errors are 0 or 1, and is convex and
    piecewise linear in between. Pixels of equal error share their increases equally.

    Args:
      probs: `[*b, h, w, c]`, in 0..1. All images are one set of pixels; use `jax.vmap` for one set
        for each image.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      classes: "present" to average over the classes that are labelled, or "all".
      bins: None for the exact loss; or the number of equal intervals of 0..1 by which errors are
        ordered, which is faster, and at most `1/bins` below the exact loss.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      A scalar in 0..1, at least float32; 0 without any class to average over.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of its range.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> float(losses.lovasz_softmax_loss(jnp.array([[0.5, 0.5], [0.0, 1.0]]), jnp.array([0, 1])))
      0.375

    References:
      Berman et al., "The Lovász-softmax loss", 2018, eq. 8, 9 and 11, algorithm 1.
    """
    if probs.ndim < 1 or labels.shape != probs.shape[:-1]:
        raise ValueError(f"labels: expected shape {probs.shape[:-1]}, got {labels.shape}")
    if classes not in ("present", "all"):
        raise ValueError(f'classes: expected "present" or "all", got {classes!r}')
    if bins is not None and bins < 1:
        raise ValueError(f"bins: expected a positive number or None, got {bins}")
    num_classes = probs.shape[-1]
    labels, valid = (x.ravel() for x in valid_labels(labels, num_classes, where=where))
    # One row for each class, as sorting reads the pixels of one class at a time.
    probs = jnp.moveaxis(jnp.asarray(probs, accumulation_dtype(probs)), -1, 0)
    probs = jnp.where(valid, probs.reshape(num_classes, -1), 0)
    foreground = (labels == jnp.arange(num_classes)[:, None]) & valid
    errors = jnp.where(foreground, 1 - probs, probs)
    losses = jax.vmap(_extended_jaccard_loss, (0, 0, None, None))(errors, foreground, valid, bins)
    # The paper and segmentation_models_pytorch average over the classes present, kornia over all;
    # the loss of an absent class is its greatest probability.
    counted = foreground.any(-1) if classes == "present" else valid.any()
    counted = jnp.broadcast_to(counted, losses.shape)
    return safe_divide(jnp.sum(losses, where=counted), jnp.sum(counted))


def lovasz_hinge_loss(
    logits: Float[Array, "*b"],
    targets: Integer[Array, "*b"] | Bool[Array, "*b"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, ""]:
    """Lovász hinge loss of binary masks: `Σ_i e_i g_i` with `e_i = max(0, 1 − s_i x_i)`.

    `s_i` is 1 for foreground and −1 for background; `g_i` is the increase of the Jaccard loss as in
    `lovasz_softmax_loss`.

    Args:
      logits: `[*b, h, w]`, logits `x`; all images are one set of pixels.
      targets: The same shape; booleans, or integers 0 and 1, others being void.
      where: Broadcasts to `logits`; False for void pixels, whose values may be anything.

    Returns:
      A scalar of at least 0, at least float32; 0 without valid pixels.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `targets` is neither integer nor boolean, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> float(losses.lovasz_hinge_loss(jnp.array([0.0, -1.0]), jnp.array([1, 0])))
      1.0

    References:
      Berman et al., "The Lovász-softmax loss", 2018, eq. 6 and 7.
    """
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets: expected the shape of logits, {logits.shape}, got {targets.shape}"
        )
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
    """`Σ_i e_i g_i` of one set; where it is differentiable, `g` is its (constant) gradient."""
    weigh = _exact_weights if bins is None else functools.partial(_binned_weights, bins)
    # One set after the other: sorting several at once is not faster and takes more memory.
    order_by = lax.stop_gradient(jnp.maximum(errors, 0))  # a softmax may round to above 1
    weights = sequential_vmap(weigh)(order_by, foreground, valid)
    return jnp.sum(errors * weights)


def _shares(total, foreground_through, background_before, background_through):
    """The `g` of foreground and of background pixels with the same error.

    With `F` wrong foreground and `B` wrong background pixels the Jaccard loss is
    `1 − (G − F)/(G + B)`, for `G` foreground pixels in `total`; its increases are written out so
    that nothing cancels. Foreground comes first among equal errors. `before` and `through` count
    the wrong pixels up to the start and the end of the group of equal errors.
    """
    before, through = (total + count for count in (background_before, background_through))
    foreground = 1 / jnp.maximum(before, 1)
    # Without foreground the loss is 1 as soon as the first pixels are wrong.
    right = jnp.where((total == 0) & (before == 0), 1, total - foreground_through)
    return foreground, right * foreground / jnp.maximum(through, 1)


def _binned_weights(bins, errors, foreground, valid):
    """The `g` of each pixel if errors in the same bin count as equal; bin 0 is the greatest."""
    index = jnp.clip(((1 - errors) * bins).astype(jnp.int32), 0, bins - 1)
    index = jnp.where(foreground, index, index + bins)
    counts = jnp.zeros(2 * bins, jnp.int32).at[index].add(valid, mode="promise_in_bounds")
    through = lax.associative_scan(jnp.add, counts.reshape(2, bins), axis=1)
    foreground_through, background_through = through
    before = background_through - counts[bins:]
    shares = _shares(foreground_through[-1], foreground_through, before, background_through)
    # Scattered into a table, as XLA would otherwise divide again for every pixel.
    table = jnp.zeros(2 * bins).at[jnp.arange(2 * bins)].set(jnp.concatenate(shares))
    return jnp.where(valid, table.at[index].get(mode="promise_in_bounds"), 0)


def _exact_weights(errors, foreground, valid):
    """The `g` of each pixel.

    After the last foreground pixel the Jaccard loss is 1 already, so background pixels with smaller
    errors have `g = 0`. Only the others are sorted, which are few if most of the prediction is
    right.
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
    """The `g` of the first `count` pixels; the rest has error 0 and is background."""
    order = stable_argsort(-errors, ties=~foreground)
    errors, foreground = errors[order], foreground[order]
    place = jnp.arange(errors.size)
    # Pixels of equal error and kind form a group from `start`, `alike` in number, and share
    # equally; in other libraries their gradients depend on their places in the sorted order.
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
