"""The gradients of losses: closed forms, fields over families of problems, and curvature."""

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
    """The gradient of the soft Jaccard index: `∂J/∂p_k = (y_k (Σp + Σy) − Σpy) / (Σp + Σy − Σpy)²`.

    The Jaccard loss has minus this.

    Args:
      probs: any shape, in 0..1.
      targets: the same shape, in 0..1 or boolean.
      axis: what a mask extends over, as in `jnp.sum`; None makes one mask of it all.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.

    Returns:
      The same shape, at least float32; 0 at void pixels, and throughout a mask where prediction and
      target are both empty.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> jaccard_gradient(jnp.array([1.0, 1.0]), jnp.array([1, 0]))
      Array([ 0.5 , -0.25], dtype=float32)

    References:
      Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
      segmentation", 2016, section 3.
    """
    y, intersection, total, valid = _overlap(probs, targets, axis, where)
    union = total - intersection
    # One factor of the denominator after the other: its square may underflow.
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
    """The gradient of the Dice loss: `∂L/∂p_k = (2Σpy − 2y_k (Σp + Σy)) / (Σp + Σy)²`.

    Args and Returns as of `jaccard_gradient`.

    Example:
      >>> dice_loss_gradient(jnp.array([0.5, 0.5]), jnp.array([1, 0]))
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
    """A predicted and a true mask: `p = sigmoid(margin · (±1) + noise · ε)`, `ε` normal.

    The sign is that of a mask as large as the true one, which covers the share `alignment` of it.
    Early in training `margin` is small beside `noise`; late it is large, and `alignment` near 1.
    Under `jax.vmap` over any of the numbers it makes a family of problems.

    Args:
      key: of `ε`.
      num_pixels: `n`.
      foreground: the share of pixels that is true, 0..1/(2 − alignment); a number or a scalar.
      alignment: the share of them that is predicted too, 0..1; a number or a scalar.
      margin: how sure the prediction is, in logits; a number or a scalar.
      noise: the standard deviation of the logits around it; a number or a scalar.

    Returns:
      The probabilities and the targets, `[n]` each.

    Example:
      >>> probs, targets = mask_problem(
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
    """The gradient of a loss at each of `n` problems: `∂Σ loss(p_i, y_i) / ∂p_i`.

    Args:
      loss: of `(probs, targets)` of one problem, both of one shape; what it returns is summed. It
        may as well take logits for probs, or have its options bound by `functools.partial`.
      probs: `[n, ...]`, the predictions of each problem.
      targets: the same shape, in 0..1 or boolean.

    Returns:
      The same shape, at least float32.

    Example:
      >>> from segjax.losses import dice_loss
      >>> probs, targets = jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([[1, 0], [1, 0]])
      >>> gradient_field(dice_loss, probs, targets)
      Array([[-0.75,  0.25],
             [-0.5 ,  0.5 ]], dtype=float32)
    """
    probs = probs.astype(accumulation_dtype(probs))
    return jax.vmap(jax.grad(lambda p, y: jnp.sum(loss(p, y))))(probs, targets)


def gradient_norms(
    loss: Loss,
    probs: Float[Array, "n *k"],
    targets: Num[Array, "n *k"] | Bool[Array, "n *k"],
) -> Float[jax.Array, " n"]:
    """The length of the gradient at each of `n` problems: `‖∂Σ loss(p_i, y_i) / ∂p_i‖`.

    Args:
      loss: as of `gradient_field`.
      probs: `[n, ...]`, the predictions of each problem.
      targets: the same shape, in 0..1 or boolean.

    Returns:
      `[n]`, at least float32.

    Example:
      >>> from segjax.losses import jaccard_loss
      >>> probs, targets = jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([[1, 0], [1, 0]])
      >>> gradient_norms(jaccard_loss, probs, targets)
      Array([1.       , 1.4142135], dtype=float32)
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
    """The Hessian of a loss by a vector, without the Hessian: `d/dt ∇loss(p + t v) at t = 0`.

    Args:
      loss: of `(probs, targets)`; what it returns is summed.
      probs: any shape.
      targets: the same shape, in 0..1 or boolean.
      tangent: `v`, the same shape.

    Returns:
      The same shape, at least float32.

    Example:
      >>> square = lambda p, y: (p - y) ** 2
      >>> hessian_vector_product(square, jnp.zeros(2), jnp.ones(2), jnp.array([1.0, 3.0]))
      Array([2., 6.], dtype=float32)

    References:
      Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
    """
    dtype = accumulation_dtype(probs, tangent)
    gradient = jax.grad(lambda p: jnp.sum(loss(p, targets)))
    return jax.jvp(gradient, (probs.astype(dtype),), (tangent.astype(dtype),))[1]


def hessian_spectrum(
    loss: Loss,
    probs: Float[Array, "*k"],
    targets: Num[Array, "*k"] | Bool[Array, "*k"],
) -> Float[jax.Array, " n"]:
    """The curvatures of a loss: the eigenvalues of its Hessian by the `n` entries of probs.

    Args:
      loss: of `(probs, targets)`; what it returns is summed.
      probs: any shape of few entries: the Hessian is dense.
      targets: the same shape, in 0..1 or boolean.

    Returns:
      `[n]`, ascending, at least float32; 0 is flat, and a convex loss has none below 0.

    Example:
      >>> saddle = lambda p, y: p[0] * p[1]
      >>> hessian_spectrum(saddle, jnp.zeros(2), jnp.zeros(2))
      Array([-1.,  1.], dtype=float32)
    """
    flat = probs.ravel().astype(accumulation_dtype(probs))
    hessian = jax.hessian(lambda p: jnp.sum(loss(p.reshape(probs.shape), targets)))(flat)
    return jnp.linalg.eigvalsh(hessian)


def bilinear_gradient_ratio(
    alpha: Float[Array, "*n"], beta: Float[Array, "*n"]
) -> Float[jax.Array, "*n"]:
    """How much of a gradient's squared norm bilinear sampling passes on, of nearest sampling's.

    `R(α, β) = (2α² − 2α + 1)(2β² − 2β + 1)`. The gradient `δ` by a sample goes to one pixel, with
    squared norm `δ²`; or to four, with `δ²` times `Σw² = (α² + (1 − α)²)(β² + (1 − β)²)`.

    Args:
      alpha: any shape, in 0..1: how far the sample lies from the left pixels' centres to the right
        ones'.
      beta: the same shape, in 0..1: likewise, from the upper to the lower ones'.

    Returns:
      The same shape, at least float32: from 1 on a pixel's centre down to ¼ between four of them.

    Example:
      >>> bilinear_gradient_ratio(jnp.array([0.0, 0.5]), jnp.array([1.0, 0.5]))
      Array([1.  , 0.25], dtype=float32)
    """
    dtype = accumulation_dtype(alpha, beta)
    alpha, beta = jnp.asarray(alpha, dtype), jnp.asarray(beta, dtype)
    return (2 * alpha**2 - 2 * alpha + 1) * (2 * beta**2 - 2 * beta + 1)


def _overlap(
    probs: Array, targets: Array, axis: int | Sequence[int] | None, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """`y`, `Σpy`, `Σp + Σy` and the valid pixels, such that they broadcast to probs."""
    if probs.shape != targets.shape:
        raise ValueError(
            f"targets: expected the shape of probs, {probs.shape}, got {targets.shape}"
        )
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, values.astype(dtype), 0) for values in (probs, targets))
    return y, jnp.sum(p * y, axis, keepdims=True), jnp.sum(p + y, axis, keepdims=True), valid
