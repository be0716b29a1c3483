"""Set prediction losses of DETR, MaskFormer and Mask2Former.

Each object is matched to one query, and every other query to "no object". A loss is a dictionary of
averages by name, already multiplied by their weights; the total loss is the sum of their values.
Terms of boxes and masks are normalised by the number of objects, those of classes by the sum of the
class weights. Both depend on the targets alone, so totals and weights add up over devices. For deep
supervision, call the same function for each decoder layer.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from segjax import matching
from segjax.labels import valid_labels
from segjax.losses.focal import sigmoid_focal_loss
from segjax.losses.per_object import map_objects, sum_images
from segjax.losses.pixel import sigmoid_cross_entropy, softmax_cross_entropy
from segjax.losses.point_sampling import sample_masks, uncertain_points
from segjax.losses.region import dice_loss
from segjax.numerics import (
    Average,
    accumulation_dtype,
    broadcast_where,
    masked_sum,
    safe_divide,
)
from segjax.ops.boxes import convert_boxes
from segjax.ops.interpolation import resize
from segjax.ops.overlap import generalized_box_iou
from segjax.typing import Array, Instances


def match_queries(
    cost: Float[Array, "*b q n"], valid: Bool[Array, "*b n"]
) -> Int[jax.Array, "*b n"]:
    """Match each object to one query at the least total cost, `Σ_j cost[query_j, j]`.

    Args:
      cost: `[*b, q, n]`, cost of matching query i to object j; pairs that are not finite are
        forbidden.
      valid: `[*b, n]`, False for padding, whose costs may be anything.

    Returns:
      Index of each object's query, int32 `[*b, n]` in 0..q−1, all different; -1 for padding, and
      for objects without a query if there are more objects than queries. Without gradient.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `valid` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.match_queries(jnp.array([[0.0], [-0.5], [-0.4]]), jnp.array([True]))
      Array([1], dtype=int32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, equation 1.
    """
    if cost.ndim < 2 or valid.shape != (*cost.shape[:-2], cost.shape[-1]):
        raise ValueError(
            f"cost, valid: expected shapes [*b, q, n], [*b, n], got {cost.shape}, {valid.shape}"
        )
    valid = broadcast_where(valid, valid.shape, name="valid")
    objects, queries = matching.linear_sum_assignment(
        jnp.swapaxes(cost, -1, -2), where=valid[..., None]
    )
    none = jnp.full(valid.shape, -1, jnp.int32)
    return jnp.put_along_axis(none, objects, queries, axis=-1, inplace=False)


def detr_loss(
    class_logits: Float[Array, "*b q classes"],
    boxes: Float[Array, "*b q 4"],
    targets: Instances,
    shape: tuple[int, int] | Int[Array, "*b 2"],
    *,
    mask_logits: Float[Array, "*b q h w"] | None = None,
    where: Bool[Array, "*b H W"] | None = None,
    examples: Bool[Array, "*b"] | None = None,
    class_weight: float = 1.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
    focal_weight: float = 1.0,
    dice_weight: float = 1.0,
    no_object_weight: float = 0.1,
) -> dict[str, Average]:
    """DETR loss: cross-entropy of the classes, L1 distance and `1 − GIoU` of matched boxes.

    Over all queries `Σ_i w_{y_i} CE_i / Σ_i w_{y_i}`, where `y_i` is the class of query i's object
    or "no object"; over the objects `Σ_j (5 |b_j − b̂_j| + 2 (1 − GIoU(b_j, b̂_j))) / Σ_j 1`.
    Queries are matched at the least total cost of the same terms, with the negative probability of
    the object's class as cost of the classes. With masks, their focal and Dice losses are added.

    Args:
      class_logits: `[*b, q, classes + 1]`; the last class is "no object".
      boxes: `[*b, q, 4]`, cxcywh as fractions of the image.
      targets: Padded objects: `boxes` `[*b, n, 4]` (xyxy in pixels), `classes` and `valid`
        `[*b, n]`, and with `mask_logits` also `masks` `[*b, n, H, W]`. Crowds and objects of a
        class outside 0..classes−1 count as padding.
      shape: (height, width) of the images in pixels, or `[*b, 2]` for images of different sizes.
      mask_logits: `[*b, q, h, w]`; they are resized to the targets' masks.
      where: `[*b, H, W]`, False for void pixels, which the terms of masks leave out.
      examples: `[*b]`, False for images that pad the batch.
      class_weight, l1_weight, giou_weight: Weights of these terms, in the matching too.
      focal_weight, dice_weight: Weights of the terms of masks.
      no_object_weight: Weight of queries without an object in the cross-entropy.

    Returns:
      Scalar averages `cross_entropy`, `l1` and `giou`; with masks also `focal` and `dice`.

    Raises:
      ValueError: If the shapes do not fit together, or the targets have no masks.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> from segjax.typing import Instances
      >>> targets = Instances(
      ...     jnp.array([[0.0, 0.0, 2.0, 4.0]]), jnp.array([0]), jnp.array([True])
      ... )
      >>> boxes = jnp.array([[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 0.75]])
      >>> terms = losses.detr_loss(jnp.zeros((2, 2)), boxes, targets, (4, 4))
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'cross_entropy': 0.6931, 'giou': 0.5, 'l1': 1.25}

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, sections 3.1 and
      A.2.
    """
    _check_queries(class_logits, boxes=boxes, mask_logits=mask_logits)
    if mask_logits is not None:
        _check_masks(targets)
    batch = class_logits.shape[:-2]
    targets = _counted(targets, examples, class_logits)
    height, width = jnp.moveaxis(jnp.broadcast_to(jnp.asarray(shape), (*batch, 2)), -1, 0)
    size = jnp.stack([width, height, width, height], -1)[..., None, :]
    true_boxes = jnp.where(targets.valid[..., None], targets.boxes / size, 0)

    def image_terms(class_logits, boxes, mask_logits, targets, true_corners, where, example):
        corners = convert_boxes(boxes, "cxcywh", "xyxy")
        true_boxes = convert_boxes(true_corners, "xyxy", "cxcywh")
        cost = (
            class_weight * matching.class_cost(class_logits, targets.classes)
            + l1_weight * matching.l1_cost(boxes, true_boxes)
            + giou_weight * matching.giou_cost(corners, true_corners)
        )
        query_of = match_queries(cost, targets.valid)
        cross_entropy = _cross_entropy(class_logits, targets, query_of, example, no_object_weight)
        l1 = jnp.sum(jnp.abs(_matched(boxes, query_of) - true_boxes), axis=-1)
        giou = generalized_box_iou(_matched(corners, query_of), true_corners, pairwise=False)
        terms = {
            "cross_entropy": cross_entropy * class_weight,
            "l1": _mean(l1, targets, query_of) * l1_weight,
            "giou": _mean(1 - giou, targets, query_of) * giou_weight,
        }
        if mask_logits is not None:
            focal, dice = _at_all_pixels(mask_logits, targets, query_of, where)
            terms["focal"] = _mean(focal, targets, query_of) * focal_weight
            terms["dice"] = _mean(dice, targets, query_of) * dice_weight
        return terms

    arrays = class_logits, boxes, mask_logits, targets, true_boxes, where
    return sum_images(image_terms, batch, *arrays, _examples(examples, batch))


def maskformer_loss(
    class_logits: Float[Array, "*b q classes"],
    mask_logits: Float[Array, "*b q h w"],
    targets: Instances,
    *,
    where: Bool[Array, "*b H W"] | None = None,
    examples: Bool[Array, "*b"] | None = None,
    class_weight: float = 1.0,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
    no_object_weight: float = 0.1,
) -> dict[str, Average]:
    """MaskFormer loss: cross-entropy of the classes, focal and Dice loss of matched masks.

    The cross-entropy is that of `detr_loss`. Masks: over the objects
    `Σ_j (20 focal_j + Dice_j) / Σ_j 1`, with the predicted masks resized to the targets. Queries
    are matched at the least total cost of the same terms, with the negative probability of the
    object's class as cost of the classes, and with the targets' masks resized to the predicted
    ones.

    Args:
      class_logits: `[*b, q, classes + 1]`; the last class is "no object".
      mask_logits: `[*b, q, h, w]`.
      targets: Padded objects, or segments of things and stuff: `masks` `[*b, n, H, W]`, `classes`
        and `valid` `[*b, n]`. Crowds and objects of a class outside 0..classes−1 count as padding.
      where: `[*b, H, W]`, False for void pixels, which matching and terms of masks leave out.
      examples: `[*b]`, False for images that pad the batch.
      class_weight, focal_weight, dice_weight: Weights of the terms, in the matching too.
      no_object_weight: Weight of queries without an object in the cross-entropy.

    Returns:
      Scalar averages `cross_entropy`, `focal` and `dice`.

    Raises:
      ValueError: If the shapes do not fit together, or the targets have no masks.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> from segjax.typing import Instances
      >>> targets = Instances(
      ...     jnp.zeros((1, 4)), jnp.array([0]), jnp.array([True]), masks=jnp.ones((1, 4, 4), bool)
      ... )
      >>> terms = losses.maskformer_loss(jnp.zeros((2, 2)), jnp.zeros((2, 2, 2)), targets)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'cross_entropy': 0.6931, 'dice': 0.32, 'focal': 0.8664}

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic segmentation",
      2021, sections 3.3 and 4.
    """
    _check_queries(class_logits, mask_logits=mask_logits)
    _check_masks(targets)
    targets = _counted(targets, examples, class_logits)

    def image_terms(class_logits, mask_logits, targets, where, example):
        pixels = mask_logits.shape[-2:]
        counted = None if where is None else _nearest(where, pixels).ravel()
        flat = functools.partial(jax.lax.collapse, start_dimension=1)
        logits, masks = flat(mask_logits), flat(_nearest(targets.masks, pixels))
        cost = (
            class_weight * matching.class_cost(class_logits, targets.classes)
            + focal_weight * matching.mask_focal_cost(logits, masks, where=counted)
            + dice_weight * matching.mask_dice_cost(logits, masks, where=counted)
        )
        query_of = match_queries(cost, targets.valid)
        cross_entropy = _cross_entropy(class_logits, targets, query_of, example, no_object_weight)
        focal, dice = _at_all_pixels(mask_logits, targets, query_of, where)
        return {
            "cross_entropy": cross_entropy * class_weight,
            "focal": _mean(focal, targets, query_of) * focal_weight,
            "dice": _mean(dice, targets, query_of) * dice_weight,
        }

    batch = class_logits.shape[:-2]
    arrays = class_logits, mask_logits, targets, where
    return sum_images(image_terms, batch, *arrays, _examples(examples, batch))


def mask2former_loss(
    key: jax.Array,
    class_logits: Float[Array, "*b q classes"],
    mask_logits: Float[Array, "*b q h w"],
    targets: Instances,
    *,
    where: Bool[Array, "*b H W"] | None = None,
    examples: Bool[Array, "*b"] | None = None,
    points: int = 12544,
    oversample: float = 3.0,
    importance: float = 0.75,
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
    no_object_weight: float = 0.1,
) -> dict[str, Average]:
    """Mask2Former loss: cross-entropies of classes and masks, and Dice loss, at random points.

    The cross-entropy of classes is that of `detr_loss`. Masks: over the objects
    `Σ_j (5 CE_j + 5 Dice_j) / Σ_j 1`, where `CE_j` is the mean binary cross-entropy of a mask.
    Queries are matched by the masks at uniformly random points, the same for all masks. The loss
    takes the `importance · points` points of `oversample · points` random candidates at which the
    matched mask is least certain, and random points for the rest.

    Args:
      key: Random keys `[*b]`, one for each image, so that its points do not depend on the batch.
      class_logits: `[*b, q, classes + 1]`; the last class is "no object".
      mask_logits: `[*b, q, h, w]`.
      targets: Padded objects, or segments of things and stuff: `masks` `[*b, n, H, W]`, `classes`
        and `valid` `[*b, n]`. Crowds and objects of a class outside 0..classes−1 count as padding.
      where: `[*b, H, W]`, False for void pixels. A point counts if none of the pixels around it
        that are interpolated is void.
      examples: `[*b]`, False for images that pad the batch.
      points: Number of points at which a mask is compared.
      oversample: Number of candidates for each point.
      importance: Fraction of the points that are chosen by uncertainty, in 0..1.
      class_weight, mask_weight, dice_weight: Weights of the terms, in the matching too.
      no_object_weight: Weight of queries without an object in the cross-entropy.

    Returns:
      Scalar averages `cross_entropy`, `mask_cross_entropy` and `dice`.

    Raises:
      ValueError: If the shapes do not fit together, or the targets have no masks.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> from segjax.typing import Instances
      >>> targets = Instances(
      ...     jnp.zeros((1, 4)), jnp.array([0]), jnp.array([True]), masks=jnp.zeros((1, 4, 4), bool)
      ... )
      >>> logits = jnp.zeros((2, 2)), jnp.zeros((2, 2, 2))
      >>> terms = losses.mask2former_loss(jax.random.key(0), *logits, targets, points=8)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'cross_entropy': 1.3863, 'dice': 4.6429, 'mask_cross_entropy': 3.4657}

    References:
      Cheng et al., "Masked-attention mask transformer for universal image segmentation",
      2022, sections 3.3 and 4.1.
    """
    _check_queries(class_logits, mask_logits=mask_logits)
    _check_masks(targets)
    batch = class_logits.shape[:-2]
    if key.shape != batch:
        raise ValueError(f"key: expected one for each image, shape {batch}, got {key.shape}")
    targets = _counted(targets, examples, class_logits)
    chosen = int(importance * points)

    def image_terms(key, class_logits, mask_logits, targets, where, example):
        # The original draws candidates for each mask separately. Sharing them does not change the
        # distribution of a mask's points, and saves most of the random numbers.
        shared, candidates, others = (
            jax.random.uniform(key, (count, 2), accumulation_dtype(mask_logits))
            for key, count in zip(
                jax.random.split(key, 3),
                (points, int(oversample * points), points - chosen),
                strict=True,
            )
        )
        logits = sample_masks(jax.lax.stop_gradient(mask_logits), shared)
        masks = sample_masks(targets.masks, shared)
        valid = None if where is None else _valid_points(where, shared)
        cost = (
            class_weight * matching.class_cost(class_logits, targets.classes)
            + mask_weight * matching.mask_cross_entropy_cost(logits, masks, where=valid)
            + dice_weight * matching.mask_dice_cost(logits, masks, where=valid)
        )
        query_of = match_queries(cost, targets.valid)

        cross_entropy = _cross_entropy(class_logits, targets, query_of, example, no_object_weight)
        entropy, dice = map_objects(
            functools.partial(_at_uncertain_points, chosen),
            _matched(mask_logits, query_of),
            query_of >= 0,
            targets.masks,
            (candidates, others, where),
        )
        return {
            "cross_entropy": cross_entropy * class_weight,
            "mask_cross_entropy": _mean(entropy, targets, query_of) * mask_weight,
            "dice": _mean(dice, targets, query_of) * dice_weight,
        }

    arrays = key, class_logits, mask_logits, targets, where
    return sum_images(image_terms, batch, *arrays, _examples(examples, batch))


def _check_queries(class_logits: Array, **predictions: Array | None) -> None:
    if class_logits.ndim < 2:
        raise ValueError(
            f"class_logits: expected shape [*b, q, classes + 1], got {class_logits.shape}"
        )
    for name, array in predictions.items():
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: expected a floating dtype, got {array.dtype}")
        if array is not None and array.shape[: class_logits.ndim - 1] != class_logits.shape[:-1]:
            raise ValueError(
                f"{name}: expected [*b, q, ...] as in class_logits, {class_logits.shape[:-1]}, "
                f"got {array.shape}"
            )


def _check_masks(targets: Instances) -> None:
    shape = None if targets.masks is None else targets.masks.shape
    if shape is None or shape[:-2] != targets.classes.shape:
        raise ValueError(f"targets.masks: expected bool [*b, n, H, W], got {shape}")


def _counted(targets: Instances, examples: Array | None, class_logits: Array) -> Instances:
    """The targets, with crowds, unknown classes and the objects of padded images as padding."""
    classes, valid = valid_labels(
        targets.classes, class_logits.shape[-1] - 1, where=targets.valid, name="targets.classes"
    )
    if targets.crowd is not None:
        valid = valid & ~targets.crowd
    if examples is not None:
        valid = valid & examples[..., None]
    return dataclasses.replace(targets, classes=classes, valid=valid)


def _examples(examples: Array | None, batch: tuple[int, ...]) -> Array:
    return jnp.ones(batch, bool) if examples is None else examples


def _matched(predictions: jax.Array, query_of: jax.Array) -> jax.Array:
    """The prediction of each object's query, `[n, ...]`; that of any query for padding."""
    return predictions[jnp.maximum(query_of, 0)]


def _mean(values: jax.Array, targets: Instances, query_of: jax.Array) -> Average:
    """The average over the objects; those without a query have value 0."""
    return Average(
        jnp.sum(jnp.where(query_of >= 0, values, 0)), jnp.sum(targets.valid).astype(values.dtype)
    )


def _cross_entropy(
    logits: jax.Array,
    targets: Instances,
    query_of: jax.Array,
    example: jax.Array,
    no_object_weight: float,
) -> Average:
    """The weighted cross-entropy of all queries; those without an object have label "no object"."""
    queries, classes = logits.shape
    no_object = classes - 1
    is_query_of = query_of == jnp.arange(queries)[:, None]
    offsets = targets.classes - no_object
    labels = no_object + jnp.sum(jnp.where(is_query_of, offsets, 0), axis=-1)
    class_weights = jnp.ones(classes).at[no_object].set(no_object_weight)
    losses = softmax_cross_entropy(logits, labels, class_weights=class_weights, where=example)
    objects = jnp.minimum(jnp.sum(targets.valid), queries)
    weight = objects + no_object_weight * (queries - objects)
    return Average(jnp.sum(losses), jnp.where(example, weight, 0).astype(losses.dtype))


def _at_all_pixels(
    mask_logits: jax.Array, targets: Instances, query_of: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Mean focal loss and Dice loss of matched masks, `[n]` each, at the targets' resolution."""
    assert targets.masks is not None
    matched = _matched(mask_logits, query_of)
    others = (where,)
    focal, dice = map_objects(_focal_and_dice, matched, query_of >= 0, targets.masks, others)
    return focal, dice


def _focal_and_dice(
    logits: jax.Array, masks: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Mean focal loss and Dice loss of masks over all pixels, `[n]` each."""
    logits = resize(logits[..., None], (masks.shape[-2], masks.shape[-1]))[..., 0]
    focal = sigmoid_focal_loss(logits, masks, alpha=0.25, where=where)
    axes = (-2, -1)
    return _masked_mean(focal, axes, where), _dice(logits, masks, axes, where)


def _at_uncertain_points(
    count: int,
    logits: jax.Array,
    masks: jax.Array,
    candidates: jax.Array,
    others: jax.Array,
    where: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and Dice loss of masks, `[n]` each, at `count` candidates and `others`.

    The losses are computed at all candidates, and those that are not chosen are masked out.
    """
    points = jnp.concatenate([candidates, others])
    # Without the barrier every consumer would transpose them again.
    logits, masks = jax.lax.optimization_barrier(
        (sample_masks(logits, points), sample_masks(masks, points))
    )
    chosen = uncertain_points(logits[:, : len(candidates)], count)
    chosen = jnp.pad(chosen, ((0, 0), (0, len(others))), constant_values=True)
    if where is not None:
        chosen &= _valid_points(where, points)
    entropy = sigmoid_cross_entropy(logits, masks, where=chosen)
    return _masked_mean(entropy, -1, chosen), _dice(logits, masks, -1, chosen)


def _masked_mean(losses: jax.Array, axes: Any, where: jax.Array | None) -> jax.Array:
    where = broadcast_where(where, losses.shape)
    return safe_divide(masked_sum(losses, axis=axes, where=where), jnp.sum(where, axes))


def _dice(logits: jax.Array, masks: jax.Array, axes: Any, where: jax.Array | None) -> jax.Array:
    return dice_loss(jax.nn.sigmoid(logits), masks, axis=axes, where=where, smooth=1.0)


def _nearest(masks: jax.Array, shape: tuple[int, int]) -> jax.Array:
    return resize(masks[..., None], shape, method="nearest")[..., 0]


def _valid_points(where: jax.Array, points: jax.Array) -> jax.Array:
    return sample_masks(~where, points) == 0
