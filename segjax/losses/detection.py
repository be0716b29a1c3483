"""Losses of detection by proposals: objectness and boxes of anchors; classes, boxes and masks.

As in `set_prediction`, every loss is a dictionary of scalar averages by name. They are taken over
the proposals that were sampled: arguments list these, or `where` tells them. The weight of
`rpn_loss` follows from anchors and objects alone. That of the heads' losses counts sampled
proposals, so it follows from what the first stage proposes, though no gradient flows through it.

Boxes and masks that a head is to give are constants: no gradient flows to the anchors, proposals
and objects that they are made of.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.labels import valid_labels
from segjax.losses.pixel import sigmoid_cross_entropy, softmax_cross_entropy
from segjax.mapping import map_shards
from segjax.matching.proposals import BACKGROUND
from segjax.numerics import Average, accumulation_dtype, broadcast_where
from segjax.ops.coding import encode_boxes
from segjax.ops.regions import crop_masks
from segjax.typing import Array, Instances

# The first stage's deltas are not scaled.
_PLAIN = (1.0, 1.0, 1.0, 1.0)


def rpn_loss(
    logits: Float[Array, "*b p"],
    deltas: Float[Array, "*b p 4"],
    anchors: Float[Array, "*b p 4"],
    matches: Integer[Array, "*b p"],
    targets: Instances,
    *,
    where: Bool[Array, "*b p"] | None = None,
    beta: float = 1 / 9,
) -> dict[str, Average]:
    """The first stage's loss: is there an object at an anchor, and where are its borders.

    `Σ_i BCE(x_i, y_i) / Σ_i 1`, where `y_i` is 1 at anchors with an object and 0 at background; and
    `Σ_i y_i Σ_k ℓ_β(t_ik − t̂_ik) / Σ_i 1`, where `t̂_i` encodes the object's box against the anchor.
    `ℓ_β(d) = d²/2β` where `|d| < β`, else `|d| − β/2`: smooth L1; `β = 0` makes it `|d|`.

    Args:
      logits: `x`, `[*b, p]`, the objectness of each anchor.
      deltas: `t`, `[*b, p, 4]`, as of `ops.decode_boxes` with weights 1.
      anchors: `[*b, p, 4]`, xyxy in pixels.
      matches: `[*b, p]`, as of `matching.match_proposals`; -2 counts nowhere.
      targets: padded objects, of which `boxes` `[*b, n, 4]` are read, xyxy in pixels.
      where: `[*b, p]`, False for anchors not sampled, and those of images that fill up the batch.
      beta: `β`, at least 0.

    Returns:
      Scalar averages: `objectness`, `rpn_box`; the weight of both is the number of anchors sampled.

    Raises:
      ValueError: if the shapes do not fit together, or `beta` is below 0.
      TypeError: if `where` is not boolean.

    Example:
      >>> box = jnp.array([[0.0, 0.0, 4.0, 4.0]])
      >>> target = Instances(box, jnp.array([0]), jnp.array([True]))
      >>> terms = rpn_loss(jnp.zeros(1), jnp.ones((1, 4)), box, jnp.array([0]), target, beta=0.0)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'objectness': 0.6931, 'rpn_box': 4.0}

    References:
      Ren et al., "Faster R-CNN", 2015, equation 1; Girshick, "Fast R-CNN", 2015, equation 3;
      torchvision's weights (both terms over the anchors sampled).
    """
    _check("logits", logits, matches.shape)
    sampled = _sampled(matches, where)
    objectness = sigmoid_cross_entropy(logits, matches >= 0, where=sampled)
    return {
        "objectness": Average.of(objectness, where=sampled),
        "rpn_box": _box_term(deltas, anchors, matches, targets, sampled, _PLAIN, beta),
    }


def box_head_loss(
    class_logits: Float[Array, "*b p classes"],
    deltas: Float[Array, "*b p classes 4"],
    proposals: Float[Array, "*b p 4"],
    matches: Integer[Array, "*b p"],
    targets: Instances,
    *,
    where: Bool[Array, "*b p"] | None = None,
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    beta: float = 1 / 9,
) -> dict[str, Average]:
    """The second stage's loss: of which class is a proposal's object, and where are its borders.

    `Σ_i CE(x_i, c_i) / Σ_i 1`, where `c_i` is 0 for background and 1 + the class of an object; and
    `Σ_i [c_i > 0] Σ_k ℓ_β(t_{i,c_i,k} − t̂_ik) / Σ_i 1`, the smooth L1 of `rpn_loss` for the deltas
    of the object's class.

    Args:
      class_logits: `x`, `[*b, p, classes + 1]`; the first is "background".
      deltas: `t`, `[*b, p, classes + 1, 4]`, those of each class; the first are never used.
      proposals: `[*b, p, 4]`, xyxy in pixels.
      matches: `[*b, p]`, as of `matching.match_proposals`; -2 counts nowhere.
      targets: padded objects, of which `boxes` `[*b, n, 4]` (xyxy in pixels) and `classes`
        `[*b, n]`, in 0..classes−1, are read; proposals of objects of others do not count.
      where: `[*b, p]`, False for proposals not sampled, whose values may be anything.
      weights: the four `λ` that the deltas are encoded with, as of `ops.encode_boxes`.
      beta: `β`, at least 0.

    Returns:
      Scalar averages: `class`, `box`; the weight of both is the number of proposals sampled.

    Raises:
      ValueError: if the shapes do not fit together, or `beta` is below 0.
      TypeError: if `where` is not boolean.

    Example:
      >>> box = jnp.array([[0.0, 0.0, 4.0, 4.0]])
      >>> target = Instances(box, jnp.array([0]), jnp.array([True]))
      >>> logits, deltas = jnp.zeros((1, 2)), jnp.ones((1, 2, 4))
      >>> terms = box_head_loss(logits, deltas, box, jnp.array([0]), target, beta=0.0)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'class': 0.6931, 'box': 4.0}

    References:
      Girshick, "Fast R-CNN", 2015, equations 1 to 3; torchvision's weights.
    """
    _check("class_logits", class_logits, (*matches.shape, class_logits.shape[-1]))
    _check("deltas", deltas, (*class_logits.shape, 4))
    labels, sampled = _labels(matches, targets, class_logits.shape[-1], where)
    cross_entropy = softmax_cross_entropy(class_logits, labels, where=sampled)
    deltas = jnp.take_along_axis(deltas, labels[..., None, None], axis=-2)[..., 0, :]
    return {
        "class": Average.of(cross_entropy, where=sampled),
        "box": _box_term(deltas, proposals, matches, targets, sampled, weights, beta),
    }


def mask_head_loss(
    mask_logits: Float[Array, "*b p oh ow classes"],
    proposals: Float[Array, "*b p 4"],
    matches: Integer[Array, "*b p"],
    targets: Instances,
    *,
    where: Bool[Array, "*b p"] | None = None,
    pixels: Bool[Array, "*b h w"] | None = None,
) -> dict[str, Average]:
    """The mask head's loss: what of a proposal belongs to its object, asked of its class alone.

    `Σ_i [c_i > 0] mean_uv BCE(x_{i,u,v,c_i}, m_iuv) / Σ_i [c_i > 0]`, where `m_i` is the mask of
    the object, cropped to the proposal by ROIAlign. Classes do not compete: the logits of the
    others have gradient 0.

    Args:
      mask_logits: `x`, `[*b, p, oh, ow, classes + 1]`; the first are never used.
      proposals: `[*b, p, 4]`, xyxy in pixels, inside the image.
      matches: `[*b, p]`, as of `matching.match_proposals`.
      targets: padded objects, of which `masks` `[*b, n, h, w]` and `classes` `[*b, n]`, in
        0..classes−1, are read; proposals of objects of others do not count.
      where: `[*b, p]`, False for proposals not sampled, whose values may be anything.
      pixels: `[*b, h, w]`, False for void ones; the mean leaves out the bins that have any.

    Returns:
      A scalar average: `mask`; its weight is the number of proposals with an object.

    Raises:
      ValueError: if the shapes do not fit together, or the targets have no masks.
      TypeError: if `where` is not boolean.

    Example:
      >>> box, mask = jnp.array([[0.0, 0.0, 4.0, 4.0]]), jnp.ones((1, 4, 4), bool)
      >>> target = Instances(box, jnp.array([0]), jnp.array([True]), masks=mask)
      >>> terms = mask_head_loss(jnp.zeros((1, 2, 2, 2)), box, jnp.array([0]), target)
      >>> round(float(terms["mask"].value), 4)
      0.6931

    References:
      He et al., "Mask R-CNN", 2017, section 3, "Mask Representation".
    """
    if targets.masks is None:
        raise ValueError("targets have no masks; due is bool [*b, n, h, w]")
    _check("mask_logits", mask_logits, (*matches.shape, *mask_logits.shape[-3:]))
    _check("proposals", proposals, (*matches.shape, 4))
    labels, sampled = _labels(matches, targets, mask_logits.shape[-1], where)
    positive = sampled & (matches >= 0)
    logits = jnp.take_along_axis(mask_logits, labels[..., None, None, None], axis=-1)[..., 0]
    dtype = accumulation_dtype(mask_logits, proposals)
    boxes = jax.lax.stop_gradient(jnp.where(positive[..., None], proposals, 0)).astype(dtype)
    size = (logits.shape[-2], logits.shape[-1])

    def targets_of_image(boxes, matches, masks, pixels):
        """`[p, oh, ow]` each: of a proposal its object's mask, and the bins that count."""
        mask = crop_masks(masks, boxes, matches, size)
        if pixels is None:
            return mask, jnp.ones_like(mask, bool)
        return mask, crop_masks(~pixels[None], boxes, jnp.zeros_like(matches), size) == 0

    images = [
        None if x is None else jax.lax.collapse(jnp.asarray(x), 0, matches.ndim - 1)
        for x in (boxes, matches, targets.masks, pixels)
    ]
    due = map_shards(jax.vmap(targets_of_image), *images)
    crops, counts = (x.reshape(logits.shape) for x in due)
    counts &= positive[..., None, None]
    losses = sigmoid_cross_entropy(logits, crops, where=counts)
    number = jnp.maximum(jnp.sum(counts, axis=(-2, -1)), 1)
    return {"mask": Average.of(jnp.sum(losses, axis=(-2, -1)) / number, where=positive)}


def _box_term(
    deltas: Array,
    proposals: Array,
    matches: Array,
    targets: Instances,
    sampled: Array,
    weights: tuple[float, float, float, float],
    beta: float,
) -> Average:
    """The smooth L1 of the positive ones, over all that were sampled."""
    if beta < 0:
        raise ValueError(f"beta: expected at least 0, got {beta}")
    _check("deltas", deltas, (*matches.shape, 4))
    _check("proposals", proposals, deltas.shape)
    positive = (sampled & (matches >= 0))[..., None]
    due = encode_boxes(_of_object(targets.boxes, matches), proposals, weights=weights)
    differences = jnp.where(positive, deltas - jax.lax.stop_gradient(due), 0)
    return Average.of(jnp.sum(_smooth_l1(differences, beta), axis=-1), where=sampled)


def _smooth_l1(differences: jax.Array, beta: float) -> jax.Array:
    size = jnp.maximum(differences, -differences)  # |d|, with derivative 0 at 0
    if beta == 0:
        return size
    return jnp.where(size < beta, differences**2 / (2 * beta), size - beta / 2)


def _sampled(matches: Array, where: Array | None) -> jax.Array:
    return broadcast_where(where, matches.shape) & (matches >= BACKGROUND)


def _labels(
    matches: Array, targets: Instances, outputs: int, where: Array | None
) -> tuple[jax.Array, jax.Array]:
    """`[*b, p]`: 0 for background, and 1 + the class of an object; and which are sampled.

    Those whose object is of no class there is are not.
    """
    classes, known = valid_labels(targets.classes, outputs - 1)
    labels = _of_object(jnp.where(known, classes + 1, -1), matches)
    return valid_labels(labels, outputs, where=_sampled(matches, where))


def _of_object(values: Array, matches: Array) -> jax.Array:
    """`[*b, p, ...]`: of each proposal the value of its object, `[*b, n, ...]`; without one, 0.

    A sum rather than a look-up: so there may be no object at all.
    """
    *batch, objects = values.shape[: matches.ndim]
    if tuple(batch) != matches.shape[:-1]:
        raise ValueError(f"targets are {batch} of {objects}; due is one set for {matches.shape}")
    is_match = matches[..., :, None] == jnp.arange(objects)
    axis = matches.ndim
    trailing = tuple(range(axis + 1, axis + 1 + values.ndim - matches.ndim))
    chosen = jnp.expand_dims(is_match, trailing)
    return jnp.sum(jnp.where(chosen, jnp.expand_dims(values, axis - 1), 0), axis=axis)


def _check(name: str, array: Array, due: tuple[int, ...]) -> None:
    if array.shape != due:
        raise ValueError(f"{name}: expected shape {due}, got {array.shape}")
