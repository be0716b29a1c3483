"""Region losses, one number per mask: Jaccard, Dice, Tversky and their variants."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Num

from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array

# One number for numerator and denominator, or a pair.
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
    """Soft Jaccard index (IoU): `(Σpy + s) / (Σp + Σy − Σpy + s)`.

    For batch-wise overlap, include the batch axis in `axis`; with `axis_name` the sums also run
    over all devices, and every device has the value and the gradients of the whole batch. (Under
    `jax.pmap`, where the transpose of a sum over devices is a sum, gradients are multiplied by the
    number of devices: reduce those of shared parameters by `pmean`, as for any mean of losses.)

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      squared: Whether to sum `p²` and `y²` instead of `p` and `y` in the denominator.
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 1 with gradient 0
      where prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> round(float(losses.soft_jaccard(jnp.array([1.0, 0.5]), jnp.array([1, 0]))), 3)
      0.667

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
    """Soft Dice coefficient: `(2Σpy + s) / (Σp + Σy + s)`.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      squared: Whether to sum `p²` and `y²` instead of `p` and `y` in the denominator.
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 1 with gradient 0
      where prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> round(float(losses.soft_dice(jnp.array([1.0, 0.5]), jnp.array([1, 0]))), 3)
      0.8

    References:
      Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical
      image segmentation", 2016, section 3 (with `squared=True`).
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
    """Jaccard (IoU) loss, one minus the soft index: `1 − (Σpy + s) / (Σp + Σy − Σpy + s)`.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      squared: Whether to sum `p²` and `y²` instead of `p` and `y` in the denominator.
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 0 with gradient 0
      where prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> round(float(losses.jaccard_loss(jnp.array([1.0, 0.5]), jnp.array([1, 0]))), 3)
      0.333

    References:
      Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
      segmentation", 2016, section 3.
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
    """Dice loss, one minus the soft Dice coefficient: `1 − (2Σpy + s) / (Σp + Σy + s)`.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      squared: Whether to sum `p²` and `y²` instead of `p` and `y` in the denominator.
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 0 with gradient 0
      where prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> round(float(losses.dice_loss(jnp.array([1.0, 0.5]), jnp.array([1, 0]))), 3)
      0.2

    References:
      Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical
      image segmentation", 2016, section 3 (with `squared=True`).
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
    """Log-cosh Dice loss: `log cosh L` of the Dice loss `L = 1 − (2Σpy + s) / (Σp + Σy + s)`.

    Its gradient is `tanh L` times that of `L`, so it vanishes smoothly as the overlap improves.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      squared: Whether to sum `p²` and `y²` instead of `p` and `y` in the denominator.
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..log cosh 1 ≈ 0.434: `probs`' shape without `axis`, at least float32; 0 with
      gradient 0 where prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> round(float(losses.log_cosh_dice_loss(jnp.array([1.0, 0.0]), jnp.array([0, 1]))), 3)
      0.434

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
    """Tversky loss, one minus the Tversky index: `1 − (Σpy + s) / (Σpy + αΣp(1−y) + βΣ(1−p)y + s)`.

    It is the Dice loss for `α = β = ½`, and the Jaccard loss for `α = β = 1`.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      alpha: Weight `α` of false positives, at least 0.
      beta: Weight `β` of false negatives, at least 0.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 0 with gradient 0
      where prediction and target are both empty and `smooth` is 0.

    Raises:
      ValueError: If the shapes do not fit together, or a weight is negative.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> probs, targets = jnp.array([1.0, 0.5]), jnp.array([1, 0])
      >>> round(float(losses.tversky_loss(probs, targets, alpha=0.5, beta=0.5)), 3)
      0.2

    References:
      Salehi et al., "Tversky loss function for image segmentation using 3D fully
      convolutional deep networks", 2017.
    """
    if alpha < 0 or beta < 0:
        raise ValueError(f"alpha, beta: expected at least 0, got {alpha}, {beta}")
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
    """Focal Tversky loss: `L^(1/γ)` of the Tversky loss `L`.

    `L = 1 − (Σpy + s) / (Σpy + αΣp(1−y) + βΣ(1−p)y + s)`. For `γ > 1` the gradient grows as `L`
    falls.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      alpha: Weight `α` of false positives, at least 0.
      beta: Weight `β` of false negatives, at least 0.
      gamma: Focal exponent `γ`, above 0.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator (MONAI's
        `smooth_nr` and `smooth_dr`).
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis`, at least float32; 0 with gradient 0 where `L`
      is 0, although the slope is unbounded near it.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of its range.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> float(losses.focal_tversky_loss(jnp.array([0.0, 0.5]), jnp.array([1, 0])))
      1.0

    References:
      Abraham and Khan, "A novel focal Tversky loss function with improved attention U-Net for
      lesion segmentation", 2019 (with α and β exchanged).
    """
    if gamma <= 0:
        raise ValueError(f"gamma: expected a positive number, got {gamma}")
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
    """Generalized Dice loss over all classes: `1 − (2Σ_c w_c Σpy + s) / (Σ_c w_c (Σp + Σy) + s)`.

    The weights `w_c` are `1/(Σy)²`, `1/Σy` or 1, scaled so that the rarest class present has weight
    1. Absent classes have weight 0.

    Args:
      probs: `[*b, h, w, c]`, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; not the last axis, which holds the classes.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.
      smooth: `s`, in pixels of the rarest class; or a pair, `s` of the numerator and of the
        denominator.
      weighting: "square" (`1/(Σy)²`), "simple" (`1/Σy`) or "uniform" (1).
      axis_name: Mapped axes (as in `jax.lax.psum`) over which a mask extends too.

    Returns:
      `[...]`, in 0..1: `probs`' shape without `axis` and `c`, at least float32; 0 with gradient 0
      where no class is present.

    Raises:
      ValueError: If the shapes do not fit together, `axis` contains the last axis, or `weighting`
        is unknown.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> probs, targets = jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[1, 0], [1, 0]])
      >>> round(float(losses.generalized_dice_loss(probs, targets, axis=0)), 3)
      0.143

    References:
      Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly
      unbalanced segmentations", 2017, section 2.1.
    """
    if weighting not in _POWERS:
        raise ValueError(f"weighting: expected one of {', '.join(_POWERS)}, got {weighting!r}")
    if not probs.ndim or axis is None or probs.ndim - 1 in np.atleast_1d(axis) % probs.ndim:
        raise ValueError(f"axis: expected axes of {probs.shape} before the last, got {axis}")
    intersection, prediction, target = _sums(probs, targets, axis, where, axis_name)
    # Other libraries weigh an absent class like the rarest one present (or by 1/ε²), so that a few
    # predicted pixels of it outweigh all other classes.
    rarest = jnp.min(target, axis=-1, keepdims=True, where=target > 0, initial=jnp.inf)
    weights = jnp.where(target > 0, safe_divide(rarest, target) ** _POWERS[weighting], 0)
    overlap, total = (jnp.sum(weights * x, axis=-1) for x in (intersection, prediction + target))
    return 1 - smooth_ratio(2 * overlap, total, smooth)


def smooth_ratio(numerator: jax.Array, denominator: jax.Array, smooth: Smooth) -> jax.Array:
    """`(numerator + s) / (denominator + s)`, and 1 where the denominator is 0."""
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
    """`Σpy`, `Σp` and `Σy` (or `Σp²` and `Σy²`) over the valid pixels of all devices."""
    if probs.shape != targets.shape:
        raise ValueError(
            f"targets: expected the shape of probs, {probs.shape}, got {targets.shape}"
        )
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, values.astype(dtype), 0) for values in (probs, targets))
    # Others compute (Σp + Σy − Σ|p − y|)/2 for Σpy: the same where y is hard, but with kinks.
    power = 2 if squared else 1
    sums = jnp.sum(p * y, axis), jnp.sum(p**power, axis), jnp.sum(y**power, axis)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)
