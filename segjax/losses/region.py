"""Losses of one number per mask: soft overlaps of a predicted and a true region."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Num

from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array

# `s` of numerator and denominator, or one number for both.
Smooth = float | tuple[float, float]
# The exponent of 1/Σy in a class's weight.
_POWERS = {"square": 2, "simple": 1, "uniform": 0}


def soft_jaccard(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    squared: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """The soft Jaccard index (IoU): `(Σpy + s) / (Σp + Σy − Σpy + s)`.

    A mask may extend over the whole batch (its axis among `axis`), and with `axis_name` over the
    batches of all devices. Every device then has the value, and the gradients, that one device
    would have of it all: under `jax.shard_map` as they are. Under `jax.pmap`, where a sum over
    devices is its own transpose, they come out times the number of devices; so reduce those of
    shared parameters by `pmean`, as for any mean of losses.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      axis: what a mask extends over, as in `jnp.sum`; None makes one mask of it all.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and that of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      squared: whether the denominator sums `p²` and `y²` instead of `p` and `y`.
      axis_name: of the mapped axes over which a mask extends too, as in `jax.lax.psum`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32. Where prediction and target
      are both empty and `smooth` is 0, the index is 1, a loss 0, and the gradient 0.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(soft_jaccard(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.6666666865348816

    References:
      Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
      segmentation", 2016, section 3.
    """
    intersection, prediction, target = _sums(probs, targets, axis, where, axis_name, squared)
    union = prediction + target - intersection
    return smooth_ratio(intersection, union, smooth)


def soft_dice(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    squared: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """The soft Dice coefficient: `(2Σpy + s) / (Σp + Σy + s)`.

    Args and Returns as of `soft_jaccard`.

    Example:
      >>> float(soft_dice(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.800000011920929

    References:
      Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical
      image segmentation", 2016, section 3 (there `squared`).
    """
    intersection, prediction, target = _sums(probs, targets, axis, where, axis_name, squared)
    return smooth_ratio(2 * intersection, prediction + target, smooth)


def jaccard_loss(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    squared: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """One minus the soft Jaccard index: `1 − (Σpy + s) / (Σp + Σy − Σpy + s)`.

    Args and Returns as of `soft_jaccard`.

    Example:
      >>> float(jaccard_loss(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.3333333134651184

    References:
      as of `soft_jaccard`.
    """
    return 1 - soft_jaccard(
        probs, targets, axis=axis, where=where, smooth=smooth, squared=squared, axis_name=axis_name
    )


def dice_loss(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    squared: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """One minus the soft Dice coefficient: `1 − (2Σpy + s) / (Σp + Σy + s)`.

    Args and Returns as of `soft_jaccard`.

    Example:
      >>> float(dice_loss(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.19999998807907104

    References:
      as of `soft_dice`.
    """
    return 1 - soft_dice(
        probs, targets, axis=axis, where=where, smooth=smooth, squared=squared, axis_name=axis_name
    )


def log_cosh_dice_loss(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    squared: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """The Dice loss with a soft landing: `log cosh L`, its gradient that of `L` times `tanh L`.

    Args and Returns as of `soft_jaccard`.

    Example:
      >>> float(log_cosh_dice_loss(jnp.array([1.0, 0.0]), jnp.array([0, 1])))
      0.43378084897994995

    References:
      Jadon, "A survey of loss functions for semantic segmentation", 2020.
    """
    loss = dice_loss(
        probs, targets, axis=axis, where=where, smooth=smooth, squared=squared, axis_name=axis_name
    )
    return jnp.log1p(2 * jnp.sinh(loss / 2) ** 2)  # cosh L = 1 + 2 sinh²(L/2): exact for small L


def tversky_loss(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """One minus the Tversky index: `1 − (Σpy + s) / (Σpy + αΣp(1−y) + βΣ(1−p)y + s)`.

    It is the Dice loss where `α = β = ½`, and the Jaccard loss where both are 1.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      alpha: the weight of false positives, not negative.
      beta: the weight of false negatives, not negative.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      axis, smooth, axis_name: as of `soft_jaccard`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 0 with gradient 0 where
      prediction and target are both empty.

    Raises:
      ValueError: if the shapes do not fit together, or a weight is negative.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(tversky_loss(jnp.array([1.0, 0.5]), jnp.array([1, 0]), alpha=0.5, beta=0.5))
      0.19999998807907104

    References:
      Salehi et al., "Tversky loss function for image segmentation using 3D fully
      convolutional deep networks", 2017.
    """
    if alpha < 0 or beta < 0:
        raise ValueError(f"alpha and beta are {alpha} and {beta}; due is 0 or more")
    intersection, prediction, target = _sums(probs, targets, axis, where, axis_name)
    errors = alpha * (prediction - intersection) + beta * (target - intersection)
    return 1 - smooth_ratio(intersection, intersection + errors, smooth)


def focal_tversky_loss(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """A power of the Tversky loss: `L^(1/γ)`, which for `γ > 1` grows steeper as `L` falls.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      alpha, beta: as of `tversky_loss`.
      gamma: `γ`, above 0.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      axis, smooth, axis_name: as of `soft_jaccard`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; where `L` is 0, 0 with
      gradient 0, though the slope towards it has no bound.

    Raises:
      ValueError: if the shapes do not fit together, or an option is out of range.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(focal_tversky_loss(jnp.array([0.0, 0.5]), jnp.array([1, 0])))
      1.0

    References:
      Abraham and Khan, "A novel focal Tversky loss function with improved attention U-Net for
      lesion segmentation", 2019 (where α and β have changed places).
    """
    if gamma <= 0:
        raise ValueError(f"gamma: expected above 0, got {gamma}")
    loss = tversky_loss(
        probs,
        targets,
        alpha=alpha,
        beta=beta,
        axis=axis,
        where=where,
        smooth=smooth,
        axis_name=axis_name,
    )
    positive = loss > 0
    return jnp.where(positive, jnp.where(positive, loss, 1) ** (1 / gamma), 0)


def generalized_dice_loss(
    probs: Float[Array, "*b c"],
    targets: Num[Array, "*b c"] | Bool[Array, "*b c"],
    *,
    axis: int | Sequence[int],
    where: Bool[Array, "..."] | None = None,
    smooth: Smooth = 0.0,
    weighting: str = "square",
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """The Dice loss of all classes at once: `1 − (2Σ_c w_c Σpy + s) / (Σ_c w_c (Σp + Σy) + s)`.

    The weights `w_c` are `1/(Σy)²`, `1/Σy` or 1, as multiples of the largest: the rarest class
    present has weight 1. A class that is absent has weight 0.

    Args:
      probs: `[*b, h, w, c]`, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      axis: what a mask extends over, as in `jnp.sum`; not the last axis, which is the classes'.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels of the rarest class; or a pair, as in `soft_jaccard`.
      weighting: "square" (`1/(Σy)²`), "simple" (`1/Σy`) or "uniform" (1).
      axis_name: as of `soft_jaccard`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis` and `c`, at least float32; 0 with gradient 0
      where no class is present.

    Raises:
      ValueError: if the shapes do not fit together, `axis` holds the classes' axis, or `weighting`
        is unknown.
      TypeError: if `where` is not boolean.

    Example:
      >>> probs, targets = jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[1, 0], [1, 0]])
      >>> float(generalized_dice_loss(probs, targets, axis=0))
      0.1428571343421936

    References:
      Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly
      unbalanced segmentations", 2017, section 2.1.
    """
    if weighting not in _POWERS:
        raise ValueError(f"weighting: expected one of {', '.join(_POWERS)}, got {weighting!r}")
    if axis is None or probs.ndim - 1 in np.atleast_1d(axis) % probs.ndim:
        raise ValueError(f"axis: expected axes of {probs.shape} before the last, got {axis}")
    intersection, prediction, target = _sums(probs, targets, axis, where, axis_name)
    # Peers weigh an absent class like the rarest one present (or by 1/ε²): so a few pixels of it
    # drown all others. Its Σy says nothing about how much they should cost.
    rarest = jnp.min(target, axis=-1, keepdims=True, where=target > 0, initial=jnp.inf)
    weights = jnp.where(target > 0, safe_divide(rarest, target) ** _POWERS[weighting], 0)
    overlap, total = (jnp.sum(weights * x, axis=-1) for x in (intersection, prediction + target))
    return 1 - smooth_ratio(2 * overlap, total, smooth)


def smooth_ratio(numerator: jax.Array, denominator: jax.Array, smooth: Smooth) -> jax.Array:
    """`(numerator + s) / (denominator + s)`; 1 where both are empty and nothing is added."""
    above, below = smooth if isinstance(smooth, tuple) else (smooth, smooth)
    return safe_divide(numerator + above, denominator + below, default=1.0)


def _sums(
    probs: Array,
    targets: Array,
    axis: int | Sequence[int] | None,
    where: Array | None,
    axis_name: str | tuple[str, ...] | None,
    squared: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`Σpy`, `Σp` and `Σy` (or `Σp²` and `Σy²`) over the valid pixels, of all devices."""
    if probs.shape != targets.shape:
        raise ValueError(
            f"targets: expected the shape of probs, {probs.shape}, got {targets.shape}"
        )
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, values.astype(dtype), 0) for values in (probs, targets))
    # Some peers take (Σp + Σy − Σ|p − y|)/2 for Σpy: the same where y is hard, but with kinks.
    power = 2 if squared else 1
    sums = jnp.sum(p * y, axis), jnp.sum(p**power, axis), jnp.sum(y**power, axis)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)
