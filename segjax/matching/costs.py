"""Matching costs: one number for every pair of a prediction and a target.

Padded targets may have any cost; exclude them by `where` of the assignment.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Num

from segjax.labels import valid_labels
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide, softplus_pair
from segjax.ops.overlap import check_box_pairs, generalized_box_iou
from segjax.typing import Array


def class_cost(
    logits: Float[Array, "*b n c"], classes: Int[Array, "*b m"]
) -> Float[jax.Array, "*b n m"]:
    """Negative probability of the target's class: `−softmax(logits_i)[class_j]`.

    Args:
      logits: `[*b, n, c]`, class logits of the predictions; "no object" may be one of the classes.
      classes: `[*b, m]`, classes of the targets; those outside 0..c−1 have cost 0.

    Returns:
      `[*b, n, m]`, in −1..0, at least float32.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.class_cost(jnp.array([[0.0, 0.0], [9.0, -9.0]]), jnp.array([0])).round(2)
      Array([[-0.5],
             [-1. ]], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, section 3.1.
    """
    return -_at_classes(jax.nn.softmax(_as_floats(logits), axis=-1), classes)


def focal_class_cost(
    logits: Float[Array, "*b n c"],
    classes: Int[Array, "*b m"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[jax.Array, "*b n m"]:
    """Focal loss of the target's class, minus that without a target.

    With `p = σ(logits_i)[class_j]` it is `−α (1−p)^γ log p + (1−α) p^γ log(1−p)`.

    Args:
      logits: `[*b, n, c]`, class logits of the predictions, for a sigmoid.
      classes: `[*b, m]`, classes of the targets; those outside 0..c−1 have cost 0.
      alpha: Weight `α` of positives, in 0..1.
      gamma: Focusing exponent `γ`, at least 1.

    Returns:
      `[*b, n, m]`, at least float32.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.focal_class_cost(jnp.array([[0.0]]), jnp.array([0])).round(3)
      Array([[-0.087]], dtype=float32)

    References:
      Zhu et al., "Deformable DETR", 2021, appendix A.4; Lin et al., "Focal loss for dense
      object detection", 2017, equation 5.
    """
    present, absent = _focal_losses(_as_floats(logits), alpha, gamma)
    return _at_classes(present - absent, classes)


def l1_cost(
    boxes: Float[Array, "*b n 4"], targets: Float[Array, "*b m 4"]
) -> Float[jax.Array, "*b n m"]:
    """L1 distance between the coordinates of boxes: `Σ_k |box_ik − target_jk|`.

    Args:
      boxes: `[*b, n, 4]`, predicted boxes; in DETR cxcywh, as fractions of the image.
      targets: `[*b, m, 4]`, in the same format and units.

    Returns:
      `[*b, n, m]`, in the units of the boxes, at least float32.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.l1_cost(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[0.5, 0.0, 1.0, 2.0]]))
      Array([[1.5]], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, section 3.1.
    """
    check_box_pairs(("boxes", "targets"), boxes, targets)
    dtype = accumulation_dtype(boxes, targets)
    difference = boxes.astype(dtype)[..., :, None, :] - targets.astype(dtype)[..., None, :, :]
    return jnp.sum(jnp.abs(difference), axis=-1)


def giou_cost(
    boxes: Float[Array, "*b n 4"], targets: Float[Array, "*b m 4"]
) -> Float[jax.Array, "*b n m"]:
    """Negative generalized IoU of boxes: `−GIoU`.

    Args:
      boxes: `[*b, n, 4]`, predicted boxes, xyxy.
      targets: `[*b, m, 4]`, xyxy in the same units.

    Returns:
      `[*b, n, m]`, in −1..1, at least float32.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.giou_cost(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[0.0, 0.0, 1.0, 2.0]]))
      Array([[-0.5]], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, section 3.1.
    """
    check_box_pairs(("boxes", "targets"), boxes, targets)
    return -generalized_box_iou(boxes, targets)


def mask_cross_entropy_cost(
    logits: Float[Array, "*b n p"],
    targets: Num[Array, "*b m p"] | Bool[Array, "*b m p"],
    *,
    where: Bool[Array, "*b p"] | None = None,
) -> Float[jax.Array, "*b n m"]:
    """Mean binary cross-entropy of masks: `−Σ_p (y log σ(x) + (1−y) log(1−σ(x))) / Σ_p 1`.

    Args:
      logits: `[*b, n, p]`, logits `x` of the predicted masks at p points, or at all pixels
        (`masks.reshape(*b, n, h * w)`).
      targets: `[*b, m, p]`, true masks `y` at the same points, in 0..1 or boolean.
      where: `[*b, p]`, False for void points, whose values may be anything.

    Returns:
      `[*b, n, m]` in nats, at least float32; 0 without valid points.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.mask_cross_entropy_cost(jnp.array([[0.0, 0.0]]), jnp.array([[0, 1]])).round(3)
      Array([[0.693]], dtype=float32)

    References:
      Cheng et al., "Masked-attention mask transformer for universal image segmentation",
      2022, sections 3.3 and 4.1.
    """
    x, y, counted = _points(logits, targets, where)
    # The cross-entropy is log(1 + eˣ) − x y, so that pairs need a single product.
    total = _inner(softplus_pair(x)[0], counted) - _inner(x, y)
    return safe_divide(total, jnp.sum(counted, axis=-1)[..., None])


def mask_focal_cost(
    logits: Float[Array, "*b n p"],
    targets: Num[Array, "*b m p"] | Bool[Array, "*b m p"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    where: Bool[Array, "*b p"] | None = None,
) -> Float[jax.Array, "*b n m"]:
    """Mean focal loss of masks.

    `−Σ_p (α y (1−q)^γ log q + (1−α) (1−y) q^γ log(1−q)) / Σ_p 1` with `q = σ(x)`.

    Args:
      logits: `[*b, n, p]`, logits `x` of the predicted masks at p points, or at all pixels
        (`masks.reshape(*b, n, h * w)`).
      targets: `[*b, m, p]`, true masks `y` at the same points, in 0..1 or boolean.
      alpha: Weight `α` of the foreground, in 0..1.
      gamma: Focusing exponent `γ`, at least 1.
      where: `[*b, p]`, False for void points, whose values may be anything.

    Returns:
      `[*b, n, m]` in nats, at least float32; 0 without valid points.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of range.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.mask_focal_cost(jnp.array([[0.0, 0.0]]), jnp.array([[1, 1]])).round(3)
      Array([[0.043]], dtype=float32)

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic segmentation",
      2021, section 3.3.
    """
    x, y, counted = _points(logits, targets, where)
    present, absent = _focal_losses(x, alpha, gamma)
    total = _inner(absent, counted) + _inner(present - absent, y)
    return safe_divide(total, jnp.sum(counted, axis=-1)[..., None])


def mask_dice_cost(
    logits: Float[Array, "*b n p"],
    targets: Num[Array, "*b m p"] | Bool[Array, "*b m p"],
    *,
    smooth: float = 1.0,
    where: Bool[Array, "*b p"] | None = None,
) -> Float[jax.Array, "*b n m"]:
    """Dice loss of masks: `1 − (2Σ_p qy + s) / (Σ_p q + Σ_p y + s)` with `q = σ(x)`.

    Args:
      logits: `[*b, n, p]`, logits `x` of the predicted masks at p points, or at all pixels
        (`masks.reshape(*b, n, h * w)`).
      targets: `[*b, m, p]`, true masks `y` at the same points, in 0..1 or boolean.
      smooth: `s`, in points.
      where: `[*b, p]`, False for void points, whose values may be anything.

    Returns:
      `[*b, n, m]`, in 0..1, at least float32; 0 without valid points.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.mask_dice_cost(jnp.array([[0.0, 0.0]]), jnp.array([[1, 1], [0, 0]]))
      Array([[0.25, 0.5 ]], dtype=float32)

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic segmentation",
      2021, section 3.3.
    """
    x, y, counted = _points(logits, targets, where)
    q = jax.nn.sigmoid(x)
    total = _inner(q, counted) + jnp.sum(y, axis=-1)[..., None, :]
    return 1 - safe_divide(2 * _inner(q, y) + smooth, total + smooth, default=1.0)


def _as_floats(array: Array) -> jax.Array:
    return jnp.asarray(array, accumulation_dtype(array))


def _at_classes(scores: jax.Array, classes: Array) -> jax.Array:
    """`scores[i, class_j]`, and 0 for unknown classes."""
    if classes.ndim < 1 or scores.ndim < 2 or classes.shape[:-1] != scores.shape[:-2]:
        raise ValueError(
            f"classes: expected shape {(*scores.shape[:-2], 'm')}, got {classes.shape}"
        )
    classes, known = (
        x[..., None, :] for x in valid_labels(classes, scores.shape[-1], name="classes")
    )
    return jnp.where(known, jnp.take_along_axis(scores, classes, axis=-1), 0)


def _focal_losses(x: jax.Array, alpha: float, gamma: float) -> tuple[jax.Array, jax.Array]:
    """The focal losses of a logit for a target of 1, and for one of 0."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number in 0..1, got {alpha}")
    if gamma < 1:
        raise ValueError(f"gamma: expected at least 1, got {gamma}")
    absent, present = softplus_pair(x)
    present *= alpha * jax.nn.sigmoid(-x) ** gamma
    absent *= (1 - alpha) * jax.nn.sigmoid(x) ** gamma
    return present, absent


def _points(
    logits: Array, targets: Array, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits and targets, 0 at void points; and a row `[*b, 1, p]` of 1, or 0 at void points.

    The product with that row is a sum over valid points, as fast as the products of pairs.
    """
    if logits.ndim < 2:
        raise ValueError(f"logits: expected shape [*b, n, p], got {logits.shape}")
    expected = (*logits.shape[:-2], "m", logits.shape[-1])
    if targets.ndim < 2 or (*targets.shape[:-2], "m", targets.shape[-1]) != expected:
        raise ValueError(f"targets: expected shape {expected}, got {targets.shape}")
    dtype = accumulation_dtype(logits, targets)
    valid = broadcast_where(where, (*logits.shape[:-2], logits.shape[-1]))[..., None, :]
    x, y = (jnp.asarray(a, dtype) for a in (logits, targets))
    if where is not None:
        x, y = (jnp.where(valid, a, 0) for a in (x, y))
    return x, y, valid.astype(dtype)


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """`Σ_p a_ip b_jp`, in full precision on every device."""
    # A CPU is faster if the matrix with fewer rows, usually b, comes first.
    product = jnp.matmul(b, jnp.swapaxes(a, -1, -2), precision=jax.lax.Precision.HIGHEST)
    return jnp.swapaxes(product, -1, -2)
