"""What it costs to match predictions with targets: a number for every pair of one image.

Targets that are padding may have any cost: leave them out by the assignment's `where`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Num

from segjax.labels import valid_labels
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide, softplus_pair
from segjax.ops.boxes import check_boxes
from segjax.ops.overlap import generalized_box_iou
from segjax.typing import Array


def class_cost(
    logits: Float[Array, "*b n c"], classes: Int[Array, "*b m"]
) -> Float[jax.Array, "*b n m"]:
    """The less probable the target's class, the dearer: `−softmax(logits_i)[class_j]`.

    Args:
      logits: `[*b, n, c]`, of the predictions; "no object" may be among the classes.
      classes: `[*b, m]`, of the targets; what is not in 0..c−1 costs 0.

    Returns:
      `[*b, n, m]`, in −1..0, at least float32.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> class_cost(jnp.array([[0.0, 0.0], [9.0, -9.0]]), jnp.array([0])).round(2)
      Array([[-0.5],
             [-1. ]], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, section 3.1.
    """
    return -_of_classes(jax.nn.softmax(_as_floats(logits), axis=-1), classes)


def focal_class_cost(
    logits: Float[Array, "*b n c"],
    classes: Int[Array, "*b m"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[jax.Array, "*b n m"]:
    """What the focal loss of the target's class changes by if there is a target.

    With `p = σ(logits_i)[class_j]`, it is `−α (1−p)^γ log p + (1−α) p^γ log(1−p)`.

    Args:
      logits: `[*b, n, c]`, of the predictions, each class for itself.
      classes: `[*b, m]`, of the targets; what is not in 0..c−1 costs 0.
      alpha: `α`, the weight of targets against none, in 0..1.
      gamma: `γ`, at least 1.

    Returns:
      `[*b, n, m]`, at least float32.

    Raises:
      ValueError: if the shapes do not fit together, or an option is out of range.

    Example:
      >>> focal_class_cost(jnp.array([[0.0]]), jnp.array([0]))
      Array([[-0.0866434]], dtype=float32)

    References:
      Zhu et al., "Deformable DETR", 2021, appendix A.4; Lin et al., "Focal loss for dense
      object detection", 2017, equation 5.
    """
    present, absent = _focal_losses(_as_floats(logits), alpha, gamma)
    return _of_classes(present - absent, classes)


def l1_cost(
    boxes: Float[Array, "*b n 4"], targets: Float[Array, "*b m 4"]
) -> Float[jax.Array, "*b n m"]:
    """The distance of boxes, coordinate by coordinate: `Σ_k |box_ik − target_jk|`.

    Args:
      boxes: `[*b, n, 4]`, predicted; DETR has them in cxcywh, as fractions of the image.
      targets: `[*b, m, 4]`, in the same form and unit.

    Returns:
      `[*b, n, m]`, in that unit, at least float32.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> l1_cost(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[0.5, 0.0, 1.0, 2.0]]))
      Array([[1.5]], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, section 3.1.
    """
    check_boxes("boxes", boxes)
    check_boxes("targets", targets)
    _check_batch("targets", targets, boxes)
    dtype = accumulation_dtype(boxes, targets)
    difference = boxes.astype(dtype)[..., :, None, :] - targets.astype(dtype)[..., None, :, :]
    return jnp.sum(jnp.abs(difference), axis=-1)


def giou_cost(
    boxes: Float[Array, "*b n 4"], targets: Float[Array, "*b m 4"]
) -> Float[jax.Array, "*b n m"]:
    """The less boxes overlap, or the farther apart they are, the dearer: `−GIoU`.

    Args:
      boxes: `[*b, n, 4]`, predicted, xyxy.
      targets: `[*b, m, 4]`, xyxy in the same unit.

    Returns:
      `[*b, n, m]`, in −1..1, at least float32.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> giou_cost(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([[0.0, 0.0, 1.0, 2.0]]))
      Array([[-0.5]], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, section 3.1.
    """
    return -generalized_box_iou(boxes, targets)


def mask_cross_entropy_cost(
    logits: Float[Array, "*b n p"],
    targets: Num[Array, "*b m p"] | Bool[Array, "*b m p"],
    *,
    where: Bool[Array, "*b p"] | None = None,
) -> Float[jax.Array, "*b n m"]:
    """The mean binary cross-entropy of a mask: `−Σ_p (y log σ(x) + (1−y) log(1−σ(x))) / Σ_p 1`.

    Args:
      logits: `[*b, n, p]`, x: of the predicted masks at p points, or at all pixels of the image
        (`masks.reshape(*b, n, h * w)`).
      targets: `[*b, m, p]`, y: the true masks there, in 0..1 or boolean.
      where: `[*b, p]`, False for void points, where all else may be anything.

    Returns:
      `[*b, n, m]`, at least float32; 0 without any valid point.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> mask_cross_entropy_cost(jnp.array([[0.0, 0.0]]), jnp.array([[0, 1]]))
      Array([[0.6931472]], dtype=float32)

    References:
      Cheng et al., "Masked-attention mask transformer for universal image segmentation",
      2022, sections 3.3 and 4.1.
    """
    x, y, counted = _points(logits, targets, where)
    # The cross-entropy is log(1 + eˣ) − x y: of the pairs one product is due.
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
    """The mean focal loss of a mask.

    `−Σ_p (α y (1−q)^γ log q + (1−α) (1−y) q^γ log(1−q)) / Σ_p 1` with `q = σ(x)`.

    Args:
      logits, targets, where: `[*b, n, p]`, `[*b, m, p]` and `[*b, p]`, as of
        `mask_cross_entropy_cost`.
      alpha: `α`, the weight of the mask against the rest, in 0..1.
      gamma: `γ`, at least 1.

    Returns:
      `[*b, n, m]`, at least float32; 0 without any valid point.

    Raises:
      ValueError: if the shapes do not fit together, or an option is out of range.
      TypeError: if `where` is not boolean.

    Example:
      >>> mask_focal_cost(jnp.array([[0.0, 0.0]]), jnp.array([[1, 1]]))
      Array([[0.0433217]], dtype=float32)

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
    """The Dice loss of a mask: `1 − (2Σ_p qy + s) / (Σ_p q + Σ_p y + s)` with `q = σ(x)`.

    Args:
      logits, targets, where: `[*b, n, p]`, `[*b, m, p]` and `[*b, p]`, as of
        `mask_cross_entropy_cost`.
      smooth: `s`, in points.

    Returns:
      `[*b, n, m]`, in 0..1, at least float32; 0 without any valid point.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> mask_dice_cost(jnp.array([[0.0, 0.0]]), jnp.array([[1, 1], [0, 0]]))
      Array([[0.25, 0.5 ]], dtype=float32)

    References:
      as of `mask_focal_cost`.
    """
    x, y, counted = _points(logits, targets, where)
    q = jax.nn.sigmoid(x)
    total = _inner(q, counted) + jnp.sum(y, axis=-1)[..., None, :]
    return 1 - safe_divide(2 * _inner(q, y) + smooth, total + smooth, default=1.0)


def _as_floats(array: Array) -> jax.Array:
    return jnp.asarray(array, accumulation_dtype(array))


def _of_classes(scores: jax.Array, classes: Array) -> jax.Array:
    """`scores[i, class_j]`."""
    if classes.shape[:-1] != scores.shape[:-2]:
        raise ValueError(
            f"classes: expected the batch axes of {scores.shape}, got shape {classes.shape}"
        )
    classes, known = (
        x[..., None, :] for x in valid_labels(classes, scores.shape[-1], name="classes")
    )
    return jnp.where(known, jnp.take_along_axis(scores, classes, axis=-1), 0)


def _focal_losses(x: jax.Array, alpha: float, gamma: float) -> tuple[jax.Array, jax.Array]:
    """The focal losses of a logit if there is a target, and if there is none."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected in 0..1, got {alpha}")
    if gamma < 1:
        raise ValueError(f"gamma: expected 1 or more, got {gamma}")
    absent, present = softplus_pair(x)
    present *= alpha * jax.nn.sigmoid(-x) ** gamma
    absent *= (1 - alpha) * jax.nn.sigmoid(x) ** gamma
    return present, absent


def _points(
    logits: Array, targets: Array, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits and targets, 0 at void points, and a row `[*b, 1, p]` of 1, of 0 at void points.

    A sum over the points that count is the product with that row, as fast as those of the pairs.
    """
    _check_batch("targets", targets, logits)
    dtype = accumulation_dtype(logits, targets)
    valid = broadcast_where(where, (*logits.shape[:-2], logits.shape[-1]))[..., None, :]
    x, y = (jnp.asarray(a, dtype) for a in (logits, targets))
    if where is not None:
        x, y = (jnp.where(valid, a, 0) for a in (x, y))
    return x, y, valid.astype(dtype)


def _check_batch(name: str, targets: Array, predictions: Array) -> None:
    batch, last = predictions.shape[:-2], predictions.shape[-1]
    if targets.ndim < 2 or (*targets.shape[:-2], targets.shape[-1]) != (*batch, last):
        raise ValueError(f"{name}: expected shape {(*batch, 'm', last)}, got {targets.shape}")


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """`Σ_p a_ip b_jp`, in full precision on every device."""
    # A CPU is faster with the fewer rows first, mostly those of b.
    product = jnp.matmul(b, jnp.swapaxes(a, -1, -2), precision=jax.lax.Precision.HIGHEST)
    return jnp.swapaxes(product, -1, -2)
