"""Gradients of losses: closed forms, gradient fields over many problems, and curvature."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array

Loss = Callable[[Array, Array], Array]


def jaccard_gradient(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Gradient of the soft Jaccard index: `∂J/∂p_k = (y_k (Σp + Σy) − Σpy) / (Σp + Σy − Σpy)²`.

    The gradient of the Jaccard loss is the negative of this.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.

    Returns:
      The same shape, at least float32; 0 at void pixels, and in masks where prediction and target
      are both empty.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> analysis.jaccard_gradient(jnp.array([1.0, 1.0]), jnp.array([1, 0]))
      Array([ 0.5 , -0.25], dtype=float32)

    References:
      Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
      segmentation", 2016, section 3.
    """
    y, intersection, total, valid = _overlap(probs, targets, axis, where)
    union = total - intersection
    # Divides by one factor at a time, as the square of the denominator may underflow.
    numerator = y * safe_divide(total, union) - safe_divide(intersection, union)
    gradient = safe_divide(numerator, union)
    return jnp.where(valid, gradient, 0)


def dice_loss_gradient(
    probs: Float[Array, "*b"],
    targets: Num[Array, "*b"] | Bool[Array, "*b"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Gradient of the Dice loss: `∂L/∂p_k = (2Σpy − 2y_k (Σp + Σy)) / (Σp + Σy)²`.

    Args:
      probs: Any shape, in 0..1.
      targets: The same shape, in 0..1 or boolean.
      axis: The axes of one mask, as in `jnp.sum`; None for all axes, which makes one mask.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.

    Returns:
      The same shape, at least float32; 0 at void pixels, and in masks where prediction and target
      are both empty.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> analysis.dice_loss_gradient(jnp.array([0.5, 0.5]), jnp.array([1, 0]))
      Array([-0.75,  0.25], dtype=float32)

    References:
      Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical
      image segmentation", 2016, section 3.
    """
    y, intersection, total, valid = _overlap(probs, targets, axis, where)
    gradient = safe_divide(2 * safe_divide(intersection, total) - 2 * y, total)
    return jnp.where(valid, gradient, 0)


def mask_problem(
    key: jax.Array,
    num_pixels: int,
    *,
    foreground: float | Float[Array, ""] = 0.5,
    alignment: float | Float[Array, ""] = 1.0,
    margin: float | Float[Array, ""] = 2.0,
    noise: float | Float[Array, ""] = 0.0,
) -> tuple[Float[jax.Array, " n"], Bool[jax.Array, " n"]]:
    """A synthetic prediction and its target: `p = sigmoid(margin · (±1) + noise · ε)`, `ε` normal.

    The sign is + in a predicted mask of the size of the true one, which covers the fraction
    `alignment` of it. Early in training `margin` is small compared to `noise`; later it is large,
    and `alignment` is near 1. `jax.vmap` over any of the numbers gives a family of problems.

    Args:
      key: Random key of `ε`.
      num_pixels: Number of pixels `n`.
      foreground: Fraction of foreground pixels, in 0..1/(2 − alignment); a number or a scalar.
      alignment: Fraction of them that is predicted, in 0..1; a number or a scalar.
      margin: Confidence of the prediction, in logits; a number or a scalar.
      noise: Standard deviation of the logits; a number or a scalar.

    Returns:
      Probabilities and boolean targets, `[n]` each.

    Example:
      >>> import jax
      >>> from segjax import analysis
      >>> probs, targets = analysis.mask_problem(
      ...     jax.random.key(0), 4, foreground=0.5, alignment=0.5, margin=100.0
      ... )
      >>> print(probs, targets)
      [0. 1. 1. 0.] [ True  True False False]
    """
    position = jnp.arange(num_pixels) + 0.5
    size = foreground * num_pixels
    start = (1 - alignment) * size
    targets = position < size
    predicted = (position > start) & (position < start + size)
    logits = margin * jnp.where(predicted, 1, -1) + noise * jax.random.normal(key, (num_pixels,))
    return jax.nn.sigmoid(logits), targets


def gradient_field(
    loss: Loss,
    probs: Float[Array, "n *k"],
    targets: Num[Array, "n *k"] | Bool[Array, "n *k"],
) -> Float[jax.Array, "n *k"]:
    """Gradient of a loss for each of `n` problems: `∂Σ loss(p_i, y_i) / ∂p_i`.

    Args:
      loss: Function of `(probs, targets)` of one problem, whose result is summed. It may take
        logits for probs; bind options by `functools.partial`.
      probs: `[n, ...]`, predictions of each problem.
      targets: The same shape, in 0..1 or boolean.

    Returns:
      The same shape, at least float32.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis, losses
      >>> probs, targets = jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([[1, 0], [1, 0]])
      >>> analysis.gradient_field(losses.dice_loss, probs, targets)
      Array([[-0.75,  0.25],
             [-0.5 ,  0.5 ]], dtype=float32)
    """
    if not probs.ndim or probs.shape[:1] != targets.shape[:1]:
        raise ValueError(
            f"probs, targets: expected shapes [n, ...], got {probs.shape}, {targets.shape}"
        )
    probs = probs.astype(accumulation_dtype(probs))
    return jax.vmap(jax.grad(lambda p, y: jnp.sum(loss(p, y))))(probs, targets)


def gradient_norms(
    loss: Loss,
    probs: Float[Array, "n *k"],
    targets: Num[Array, "n *k"] | Bool[Array, "n *k"],
) -> Float[jax.Array, " n"]:
    """Norm of the gradient of a loss for each of `n` problems: `‖∂Σ loss(p_i, y_i) / ∂p_i‖`.

    Args:
      loss: Function of `(probs, targets)` of one problem, whose result is summed.
      probs: `[n, ...]`, predictions of each problem.
      targets: The same shape, in 0..1 or boolean.

    Returns:
      `[n]`, at least float32.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis, losses
      >>> probs, targets = jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([[1, 0], [1, 0]])
      >>> analysis.gradient_norms(losses.jaccard_loss, probs, targets).round(2)
      Array([1.  , 1.41], dtype=float32)
    """
    field = gradient_field(loss, probs, targets)
    squares = jnp.sum(field.reshape(len(field), -1) ** 2, axis=-1)
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def hessian_vector_product(
    loss: Loss,
    probs: Float[Array, "*k"],
    targets: Num[Array, "*k"] | Bool[Array, "*k"],
    tangent: Float[Array, "*k"],
) -> Float[jax.Array, "*k"]:
    """Product of the Hessian of a loss with a vector: `d/dt ∇loss(p + t v) at t = 0`.

    Args:
      loss: Function of `(probs, targets)`, whose result is summed.
      probs: Any shape.
      targets: The same shape, in 0..1 or boolean.
      tangent: Vector `v`, the same shape.

    Returns:
      The same shape, at least float32.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> square = lambda p, y: (p - y) ** 2
      >>> analysis.hessian_vector_product(square, jnp.zeros(2), jnp.ones(2), jnp.array([1.0, 3.0]))
      Array([2., 6.], dtype=float32)

    References:
      Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
    """
    if tangent.shape != probs.shape:
        raise ValueError(
            f"tangent: expected the shape of probs, {probs.shape}, got {tangent.shape}"
        )
    dtype = accumulation_dtype(probs, tangent)
    gradient = jax.grad(lambda p: jnp.sum(loss(p, targets)))
    return jax.jvp(gradient, (probs.astype(dtype),), (tangent.astype(dtype),))[1]


def hessian_spectrum(
    loss: Loss,
    probs: Float[Array, "*k"],
    targets: Num[Array, "*k"] | Bool[Array, "*k"],
) -> Float[jax.Array, " n"]:
    """Eigenvalues of the Hessian of a loss with respect to the `n` entries of `probs`.

    Args:
      loss: Function of `(probs, targets)`, whose result is summed.
      probs: Any shape with few entries, as the Hessian is dense.
      targets: The same shape, in 0..1 or boolean.

    Returns:
      `[n]`, ascending, at least float32; a convex loss has none below 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> saddle = lambda p, y: p[0] * p[1]
      >>> analysis.hessian_spectrum(saddle, jnp.zeros(2), jnp.zeros(2))
      Array([-1.,  1.], dtype=float32)
    """
    flat = probs.ravel().astype(accumulation_dtype(probs))
    hessian = jax.hessian(lambda p: jnp.sum(loss(p.reshape(probs.shape), targets)))(flat)
    return jnp.linalg.eigvalsh(hessian)


def bilinear_gradient_ratio(
    alpha: Float[Array, "*n"], beta: Float[Array, "*n"]
) -> Float[jax.Array, "*n"]:
    """Squared norm of the gradient through bilinear sampling, relative to nearest sampling.

    `R(α, β) = (2α² − 2α + 1)(2β² − 2β + 1)`. The gradient `δ` of a sample goes to one pixel, with
    squared norm `δ²`; or to four pixels, with `δ²` times `Σw² = (α² + (1 − α)²)(β² + (1 − β)²)`.

    Args:
      alpha: Any shape, horizontal position of the sample between the centres of the left (0) and
        right (1) pixels.
      beta: The same shape, vertical position between the centres of the upper (0) and lower (1)
        pixels.

    Returns:
      The same shape, at least float32, from 1 at the centre of a pixel to ¼ between four pixels.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> analysis.bilinear_gradient_ratio(jnp.array([0.0, 0.5]), jnp.array([1.0, 0.5]))
      Array([1.  , 0.25], dtype=float32)
    """
    dtype = accumulation_dtype(alpha, beta)
    alpha, beta = jnp.asarray(alpha, dtype), jnp.asarray(beta, dtype)
    return (2 * alpha**2 - 2 * alpha + 1) * (2 * beta**2 - 2 * beta + 1)


def _overlap(
    probs: Array, targets: Array, axis: int | Sequence[int] | None, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """`y`, `Σpy`, `Σp + Σy` and the valid pixels, with shapes that broadcast to probs."""
    if probs.shape != targets.shape:
        raise ValueError(
            f"targets: expected the shape of probs, {probs.shape}, got {targets.shape}"
        )
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, values.astype(dtype), 0) for values in (probs, targets))
    return y, jnp.sum(p * y, axis, keepdims=True), jnp.sum(p + y, axis, keepdims=True), valid
