"""Losses of a set: each object is matched with one query, and every other query with "no object".

Every loss is a dictionary of averages by name, already times their weights in the objective, which
is the sum of their values. The terms of boxes and masks are normalised by the number of objects,
that of classes by the sum of its weights: both depend on the targets alone, so that totals and
weights add up over devices. A decoder's earlier layers (deep supervision) take the same functions,
one call for each layer.
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
    """The query of each object: one-to-one, at the least total cost `Σ_j cost[query_j, j]`.

    Args:
      cost: `[*b, q, n]`, of matching query i with object j; what is not finite is forbidden.
      valid: `[*b, n]`, False for padding, whose costs may be anything.

    Returns:
      int32 `[*b, n]` in 0..q−1, no two alike; -1 for padding, and for objects without a query
      where there are more of them than queries. No gradient flows through it.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `valid` is not boolean.

    Example:
      >>> match_queries(jnp.array([[0.0], [-0.5], [-0.4]]), jnp.array([True]))
      Array([1], dtype=int32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, equation 1.
    """
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
    """DETR's loss: cross-entropy of the classes, L1 distance and `1 − GIoU` of matched boxes.

    `Σ_i w_{y_i} CE_i / Σ_i w_{y_i}` over all queries, where `y_i` is the class of query i's object
    or "no object"; and over the objects `Σ_j (5 |b_j − b̂_j| + 2 (1 − GIoU(b_j, b̂_j))) / Σ_j 1`. The
    matching is that of least cost, with minus the probability of the object's class for the
    cross-entropy. With masks, their focal loss and their Dice loss are added.

    Args:
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      boxes: `[*b, q, 4]`, cxcywh as fractions of the image.
      targets: padded objects: `boxes` `[*b, n, 4]` (xyxy in pixels), `classes` and `valid`
        `[*b, n]`, with `mask_logits` also `masks` `[*b, n, H, W]`. Crowds count as padding, and
        so do objects of a class not in 0..classes−1.
      shape: (height, width) of the images in pixels, or int `[*b, 2]` where each has its own.
      mask_logits: `[*b, q, h, w]`, compared with the targets' masks at the targets' size.
      where: `[*b, H, W]`, of the targets' size; False for void pixels, which no mask term counts.
      examples: `[*b]`, False for an image that only fills up the batch.
      class_weight, l1_weight, giou_weight: of the terms, in the matching too.
      focal_weight, dice_weight: of the terms of masks.
      no_object_weight: of queries without an object in the cross-entropy.

    Returns:
      Scalar averages: `cross_entropy`, `l1`, `giou`; with masks `focal` and `dice`.

    Raises:
      ValueError: if the shapes do not fit together, or the targets have no masks.

    Example:
      >>> targets = Instances(
      ...     jnp.array([[0.0, 0.0, 2.0, 4.0]]), jnp.array([0]), jnp.array([True])
      ... )
      >>> boxes = jnp.array([[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 0.75]])
      >>> terms = detr_loss(jnp.zeros((2, 2)), boxes, targets, (4, 4))
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'cross_entropy': 0.6931, 'giou': 0.5, 'l1': 1.25}

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, sections 3.1 and
      A.2.
    """
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
    """MaskFormer's loss: cross-entropy of the classes, focal and Dice loss of matched masks.

    The classes as in `detr_loss`, and over the objects `Σ_j (20 focal_j + Dice_j) / Σ_j 1`, the
    predicted masks resized to the targets' size. The matching is that of least cost by the same
    terms, with minus the probability of the object's class for the cross-entropy, and at the size
    of the predicted masks, to whose pixels the nearest of the targets' belong.

    Args:
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      mask_logits: `[*b, q, h, w]`.
      targets: padded objects, or segments of things and stuff: `masks` `[*b, n, H, W]`, `classes`
        and `valid`. Crowds count as padding, and so do those of a class not in 0..classes−1.
      where: `[*b, H, W]`, False for void pixels, which neither matching nor mask term counts.
      examples: `[*b]`, False for an image that only fills up the batch.
      class_weight, focal_weight, dice_weight: of the terms, in the matching too.
      no_object_weight: of queries without an object in the cross-entropy.

    Returns:
      Scalar averages: `cross_entropy`, `focal`, `dice`.

    Raises:
      ValueError: if the shapes do not fit together, or the targets have no masks.

    Example:
      >>> targets = Instances(
      ...     jnp.zeros((1, 4)), jnp.array([0]), jnp.array([True]), masks=jnp.ones((1, 4, 4), bool)
      ... )
      >>> terms = maskformer_loss(jnp.zeros((2, 2)), jnp.zeros((2, 2, 2)), targets)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'cross_entropy': 0.6931, 'dice': 0.32, 'focal': 0.8664}

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic segmentation",
      2021, sections 3.3 and 4.
    """
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
    """Mask2Former's loss: as MaskFormer's, but masks are compared at random points only.

    The classes as in `detr_loss`, and over the objects `Σ_j (5 CE_j + 5 Dice_j) / Σ_j 1`, where
    `CE_j` is a mask's mean binary cross-entropy. The matching compares all masks at the same
    points, uniformly random. The loss then takes of `oversample · points` candidates the
    `importance · points` at which the matched mask is least certain, and random ones for the rest.

    Args:
      key: random keys `[*b]`, one for each image; so its points do not depend on the batch.
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      mask_logits: `[*b, q, h, w]`.
      targets: as of `maskformer_loss`, with `masks` `[*b, n, H, W]`.
      where: `[*b, H, W]`, False for void pixels. A point counts if none of the pixels around it,
        between which the target is interpolated, is void.
      examples: `[*b]`, False for an image that only fills up the batch.
      points: how many a mask is compared at.
      oversample: candidates by point.
      importance: the share of points that are chosen, in 0..1.
      class_weight, mask_weight, dice_weight: of the terms, in the matching too.
      no_object_weight: of queries without an object in the cross-entropy.

    Returns:
      Scalar averages: `cross_entropy`, `mask_cross_entropy`, `dice`.

    Raises:
      ValueError: if the shapes do not fit together, or the targets have no masks.

    Example:
      >>> targets = Instances(
      ...     jnp.zeros((1, 4)), jnp.array([0]), jnp.array([True]), masks=jnp.zeros((1, 4, 4), bool)
      ... )
      >>> logits = jnp.zeros((2, 2)), jnp.zeros((2, 2, 2))
      >>> terms = mask2former_loss(jax.random.key(0), *logits, targets, points=8)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'cross_entropy': 1.3863, 'dice': 4.6429, 'mask_cross_entropy': 3.4657}

    References:
      Cheng et al., "Masked-attention mask transformer for universal image segmentation",
      2022, sections 3.3 and 4.1.
    """
    _check_masks(targets)
    batch = class_logits.shape[:-2]
    if key.shape != batch:
        raise ValueError(f"key: expected shape {batch}, one for each image, got {key.shape}")
    targets = _counted(targets, examples, class_logits)
    chosen = int(importance * points)

    def image_terms(key, class_logits, mask_logits, targets, where, example):
        # The original draws candidates for each mask anew. To share them changes no mask's points
        # in distribution, and saves most of the random numbers.
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


def _check_masks(targets: Instances) -> None:
    if targets.masks is None:
        raise ValueError("targets have no masks; due is bool [*b, n, H, W]")


def _counted(targets: Instances, examples: Array | None, class_logits: Array) -> Instances:
    """The objects that count: of such images, of a class there is, and no crowds.

    Of those no query has to find any.
    """
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
    """`[n, ...]`: of each object the prediction of its query, of padding any."""
    return predictions[jnp.maximum(query_of, 0)]


def _mean(values: jax.Array, targets: Instances, query_of: jax.Array) -> Average:
    """Over the objects; one for which there is no query left has value 0."""
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
    """Of all queries, weighted: those without an object are to say so."""
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
    """`[n]` each: the mean focal loss and the Dice loss of matched masks, at the targets' size."""
    assert targets.masks is not None
    matched = _matched(mask_logits, query_of)
    others = (where,)
    focal, dice = map_objects(_focal_and_dice, matched, query_of >= 0, targets.masks, others)
    return focal, dice


def _focal_and_dice(
    logits: jax.Array, masks: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Of each mask `[n]`, at all pixels."""
    logits = resize(logits[..., None], (masks.shape[-2], masks.shape[-1]))[..., 0]
    focal = sigmoid_focal_loss(logits, masks, alpha=0.25, where=where)
    axes = (-2, -1)
    return _mean_of_each(focal, axes, where), _dice(logits, masks, axes, where)


def _at_uncertain_points(
    count: int,
    logits: jax.Array,
    masks: jax.Array,
    candidates: jax.Array,
    others: jax.Array,
    where: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Of each mask `[n]` cross-entropy and Dice loss, at `count` candidates and the others.

    The losses are taken at all candidates, and the mask of the chosen ones leaves the rest out.
    """
    points = jnp.concatenate([candidates, others])
    # Turned once, and not by all that reads them.
    logits, masks = jax.lax.optimization_barrier(
        (sample_masks(logits, points), sample_masks(masks, points))
    )
    chosen = uncertain_points(logits[:, : len(candidates)], count)
    chosen = jnp.pad(chosen, ((0, 0), (0, len(others))), constant_values=True)
    if where is not None:
        chosen &= _valid_points(where, points)
    entropy = sigmoid_cross_entropy(logits, masks, where=chosen)
    return _mean_of_each(entropy, -1, chosen), _dice(logits, masks, -1, chosen)


def _mean_of_each(losses: jax.Array, axes: Any, where: jax.Array | None) -> jax.Array:
    where = broadcast_where(where, losses.shape)
    return safe_divide(masked_sum(losses, axis=axes, where=where), jnp.sum(where, axes))


def _dice(logits: jax.Array, masks: jax.Array, axes: Any, where: jax.Array | None) -> jax.Array:
    return dice_loss(jax.nn.sigmoid(logits), masks, axis=axes, where=where, smooth=1.0)


def _nearest(masks: jax.Array, shape: tuple[int, int]) -> jax.Array:
    return resize(masks[..., None], shape, method="nearest")[..., 0]


def _valid_points(where: jax.Array, points: jax.Array) -> jax.Array:
    return sample_masks(~where, points) == 0
