"""Losses of one number per mask: soft overlaps of a predicted and a true region."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array


def soft_jaccard(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: float = 0.0,
    squared: bool = False,
) -> Float[jax.Array, "..."]:
    """The soft Jaccard index (IoU): `(Σpy + s) / (Σp + Σy − Σpy + s)`.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      axis: what a mask extends over, as in `jnp.sum`; None makes one mask of it all.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels.
      squared: whether the union counts `p²` and `y²` instead of `p` and `y`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 1 with gradient 0 where
      prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(soft_jaccard(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.6666666865348816

    Source: Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
      segmentation", 2016, section 3.
    """
    intersection, prediction, target = _sums(probs, targets, axis, where, squared)
    union = prediction + target - intersection
    return safe_divide(intersection + smooth, union + smooth, default=1.0)


def soft_dice(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: float = 0.0,
    squared: bool = False,
) -> Float[jax.Array, "..."]:
    """The soft Dice coefficient: `(2Σpy + s) / (Σp + Σy + s)`.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      axis: what a mask extends over, as in `jnp.sum`; None makes one mask of it all.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels.
      squared: whether the denominator sums `p²` and `y²` instead of `p` and `y`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 1 with gradient 0 where
      prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(soft_dice(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.800000011920929

    Source: Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical
      image segmentation", 2016, section 3 (there `squared`).
    """
    intersection, prediction, target = _sums(probs, targets, axis, where, squared)
    return safe_divide(2 * intersection + smooth, prediction + target + smooth, default=1.0)


def jaccard_loss(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: float = 0.0,
    squared: bool = False,
) -> Float[jax.Array, "..."]:
    """One minus the soft Jaccard index: `1 − (Σpy + s) / (Σp + Σy − Σpy + s)`.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      axis: what a mask extends over, as in `jnp.sum`; None makes one mask of it all.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels.
      squared: whether the union counts `p²` and `y²` instead of `p` and `y`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 0 with gradient 0 where
      prediction and target are both empty.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(jaccard_loss(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.3333333134651184

    Source: Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
      segmentation", 2016, section 3.
    """
    return 1 - soft_jaccard(probs, targets, axis=axis, where=where, smooth=smooth, squared=squared)


def dice_loss(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
    smooth: float = 0.0,
    squared: bool = False,
) -> Float[jax.Array, "..."]:
    """One minus the soft Dice coefficient: `1 − (2Σpy + s) / (Σp + Σy + s)`.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      axis: what a mask extends over, as in `jnp.sum`; None makes one mask of it all.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels.
      squared: whether the denominator sums `p²` and `y²` instead of `p` and `y`.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 0 with gradient 0 where
      prediction and target are both empty.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(dice_loss(jnp.array([1.0, 0.5]), jnp.array([1, 0])))
      0.19999998807907104

    Source: Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical
      image segmentation", 2016, section 3 (there `squared`).
    """
    return 1 - soft_dice(probs, targets, axis=axis, where=where, smooth=smooth, squared=squared)


def _sums(
    probs: Array,
    targets: Array,
    axis: int | Sequence[int] | None,
    where: Array | None,
    squared: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`Σpy`, `Σp` and `Σy` (or `Σp²` and `Σy²`) over the valid pixels."""
    if probs.shape != targets.shape:
        raise ValueError(f"targets has shape {targets.shape}; due is that of probs, {probs.shape}")
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, values.astype(dtype), 0) for values in (probs, targets))
    power = 2 if squared else 1
    return jnp.sum(p * y, axis), jnp.sum(p**power, axis), jnp.sum(y**power, axis)
