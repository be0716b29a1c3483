"""Intersection over union of boxes, and its generalisations for boxes that do not overlap."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from segjax.numerics import accumulation_dtype, safe_divide
from segjax.ops.boxes import box_area, check_boxes
from segjax.typing import Array


def box_iou(
    a: Float[Array, "*b n 4"], b: Float[Array, "*b m 4"], *, pairwise: bool = True
) -> Float[jax.Array, "*b n m"] | Float[jax.Array, "*b n"]:
    """Intersection over union of boxes: `IoU = |A ∩ B| / |A ∪ B|`.

    Args:
      a: `[*b, n, 4]`, xyxy in pixels.
      b: `[*b, m, 4]`, xyxy in pixels.
      pairwise: True to compare every box of `a` with every box of `b`; False to compare the i-th
        with the i-th, where `n = m`.

    Returns:
      `[*b, n, m]`, or `[*b, n]` if not `pairwise`; at least float32, in 0..1. Two boxes of area 0
      have IoU 0.

    Raises:
      ValueError: If the shapes of `a` and `b` do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[0.0, 0.0, 2.0, 1.0]]))
      Array([[0.5]], dtype=float32)
    """
    return _iou(*_align(a, b, pairwise))


def generalized_box_iou(
    a: Float[Array, "*b n 4"], b: Float[Array, "*b m 4"], *, pairwise: bool = True
) -> Float[jax.Array, "*b n m"] | Float[jax.Array, "*b n"]:
    """Generalized IoU of boxes: `GIoU = IoU − |C ∖ (A ∪ B)| / |C|`.

    The hull `C` is the smallest box around both.

    Args:
      a: `[*b, n, 4]`, xyxy in pixels.
      b: `[*b, m, 4]`, xyxy in pixels.
      pairwise: True to compare every box of `a` with every box of `b`; False to compare the i-th
        with the i-th, where `n = m`.

    Returns:
      `[*b, n, m]`, or `[*b, n]` if not `pairwise`; at least float32, in −1..1.

    Raises:
      ValueError: If the shapes of `a` and `b` do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> a, b = jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[3.0, 0.0, 4.0, 1.0]])
      >>> ops.generalized_box_iou(a, b)
      Array([[-0.5]], dtype=float32)

    References:
      Rezatofighi et al., "Generalized intersection over union", 2019, algorithm 1.
    """
    a, b = _align(a, b, pairwise)
    hull = box_area(_hull(a, b))
    return _iou(a, b) - safe_divide(hull - _union(a, b), hull)


def distance_box_iou(
    a: Float[Array, "*b n 4"], b: Float[Array, "*b m 4"], *, pairwise: bool = True
) -> Float[jax.Array, "*b n m"] | Float[jax.Array, "*b n"]:
    """Distance IoU of boxes: `DIoU = IoU − ‖centre(A) − centre(B)‖² / d²`.

    `d` is the diagonal of the smallest box around both.

    Args:
      a: `[*b, n, 4]`, xyxy in pixels.
      b: `[*b, m, 4]`, xyxy in pixels.
      pairwise: True to compare every box of `a` with every box of `b`; False to compare the i-th
        with the i-th, where `n = m`.

    Returns:
      `[*b, n, m]`, or `[*b, n]` if not `pairwise`; at least float32, in −1..1.

    Raises:
      ValueError: If the shapes of `a` and `b` do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.distance_box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 1.0, 2.0, 2.0]]))
      Array([[0.1875]], dtype=float32)

    References:
      Zheng et al., "Distance-IoU loss", 2020, eq. 6.
    """
    return _distance_iou(*_align(a, b, pairwise))


def complete_box_iou(
    a: Float[Array, "*b n 4"], b: Float[Array, "*b m 4"], *, pairwise: bool = True
) -> Float[jax.Array, "*b n m"] | Float[jax.Array, "*b n"]:
    """Complete IoU of boxes: `CIoU = DIoU − αv`, with `α = v/(1 − IoU + v)`.

    `v = 4/π² (arctan(w_A/h_A) − arctan(w_B/h_B))²` compares the aspect ratios. The gradient is that
    of this formula, whereas the authors' code and torchvision hold `α` constant.

    Args:
      a: `[*b, n, 4]`, xyxy in pixels.
      b: `[*b, m, 4]`, xyxy in pixels.
      pairwise: True to compare every box of `a` with every box of `b`; False to compare the i-th
        with the i-th, where `n = m`.

    Returns:
      `[*b, n, m]`, or `[*b, n]` if not `pairwise`; at least float32, in −2..1.

    Raises:
      ValueError: If the shapes of `a` and `b` do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.complete_box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 1.0, 2.0, 2.0]]))
      Array([[0.1875]], dtype=float32)

    References:
      Zheng et al., "Distance-IoU loss", 2020, eqs. 8 to 11.
    """
    a, b = _align(a, b, pairwise)
    v = (2 / math.pi * (_angle(a) - _angle(b))) ** 2
    alpha = safe_divide(v, 1 - _iou(a, b) + v)
    return _distance_iou(a, b) - alpha * v


def check_box_pairs(names: tuple[str, str], a: Array, b: Array) -> None:
    """Raises a ValueError if boxes are not `[*b, n, 4]` and `[*b, m, 4]`."""
    for name, boxes in zip(names, (a, b), strict=True):
        check_boxes(name, boxes)
    if min(a.ndim, b.ndim) < 2 or a.shape[:-2] != b.shape[:-2]:
        raise ValueError(
            f"{', '.join(names)}: expected shapes [*b, n, 4], [*b, m, 4], got {a.shape}, {b.shape}"
        )


def _align(a: Array, b: Array, pairwise: bool) -> tuple[jax.Array, jax.Array]:
    """The boxes with axes that broadcast against one another."""
    check_box_pairs(("a", "b"), a, b)
    if not pairwise and a.shape != b.shape:
        raise ValueError(f"b: expected the shape of a, {a.shape}, got {b.shape}")
    dtype = accumulation_dtype(a, b)
    a, b = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
    return (a[..., :, None, :], b[..., None, :, :]) if pairwise else (a, b)


def _iou(a: jax.Array, b: jax.Array) -> jax.Array:
    return safe_divide(_intersection(a, b), _union(a, b))


def _intersection(a: jax.Array, b: jax.Array) -> jax.Array:
    start, end = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    return box_area(jnp.concatenate([start, end], axis=-1))


def _union(a: jax.Array, b: jax.Array) -> jax.Array:
    return box_area(a) + box_area(b) - _intersection(a, b)


def _hull(a: jax.Array, b: jax.Array) -> jax.Array:
    start, end = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    return jnp.concatenate([start, end], axis=-1)


def _distance_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    hull = _hull(a, b)
    diagonal = jnp.sum((hull[..., 2:] - hull[..., :2]) ** 2, axis=-1)
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return _iou(a, b) - safe_divide(jnp.sum(between**2, axis=-1), diagonal)


def _angle(box: jax.Array) -> jax.Array:
    """`arctan(w/h)`: 0 for a box without width, π/2 without height, π/4 without either."""
    sides = jnp.maximum(box[..., 2:] - box[..., :2], 0)
    longest = jnp.max(sides, axis=-1, keepdims=True)
    # The angle does not depend on the scale; at this one nothing over- or underflows.
    scale = lax.stop_gradient(jnp.where(longest > 0, longest, 1))
    width, height = jnp.moveaxis(jnp.where(longest > 0, sides / scale, 1), -1, 0)
    return jnp.arctan2(width, height)
