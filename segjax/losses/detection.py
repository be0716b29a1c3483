"""Losses of two-stage detectors (Faster and Mask R-CNN): the RPN, the box head and the mask head.

Each loss is a dictionary of scalar averages by name, over the sampled anchors or proposals: pass
these alone, or mark them by `where`. No gradient flows through the weights of the averages, nor
through the targets to anchors, proposals and objects.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.labels import valid_labels
from segjax.losses.pixel import sigmoid_cross_entropy, softmax_cross_entropy
from segjax.mapping import map_shards
from segjax.matching.proposals import BACKGROUND
from segjax.numerics import Average, accumulation_dtype, broadcast_where
from segjax.ops.boxes import check_boxes
from segjax.ops.coding import encode_boxes
from segjax.ops.regions import crop_masks
from segjax.typing import Array, Instances

# The weights of the RPN's box encoding.
_RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


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
    """Loss of the region proposal network (RPN): objectness and boxes of anchors.

    Objectness: `Σ_i BCE(x_i, y_i) / Σ_i 1`, where `y_i` is 1 for anchors with an object and 0 for
    background. Boxes: `Σ_i y_i Σ_k ℓ_β(t_ik − t̂_ik) / Σ_i 1`, where `t̂_i` encodes the object's
    box relative to the anchor, and `ℓ_β` is the smooth L1 loss: `d²/2β` where `|d| < β`, else
    `|d| − β/2`. The sums run over the sampled anchors.

    Args:
      logits: `[*b, p]`, objectness logits `x` of the anchors.
      deltas: `[*b, p, 4]`, predicted shifts and scales `t`, as in `ops.decode_boxes` with weights
        1.
      anchors: `[*b, p, 4]`, xyxy in pixels.
      matches: `[*b, p]`, from `matching.match_proposals`: index of the matched object, -1 for
        background, -2 to ignore.
      targets: Padded objects; only `boxes` `[*b, n, 4]` are used, xyxy in pixels.
      where: `[*b, p]`, False for anchors that are not sampled, or of images that pad the batch.
      beta: `β` of the smooth L1 loss, at least 0; 0 makes it the L1 loss.

    Returns:
      Scalar averages `objectness` and `rpn_box`; their weight is the number of sampled anchors.

    Raises:
      ValueError: If the shapes do not fit together, or `beta` is below 0.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> from segjax.typing import Instances
      >>> box = jnp.array([[0.0, 0.0, 4.0, 4.0]])
      >>> target = Instances(box, jnp.array([0]), jnp.array([True]))
      >>> logits, deltas = jnp.zeros(1), jnp.ones((1, 4))
      >>> terms = losses.rpn_loss(logits, deltas, box, jnp.array([0]), target, beta=0.0)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'objectness': 0.6931, 'rpn_box': 4.0}

    References:
      Ren et al., "Faster R-CNN", 2015, equation 1; Girshick, "Fast R-CNN", 2015, equation 3;
      both terms are normalised by the number of sampled anchors, as in torchvision.
    """
    _check("logits", logits, matches.shape)
    _check("deltas", deltas, (*matches.shape, 4))
    _check("anchors", anchors, deltas.shape)
    sampled = _sampled(matches, where)
    objectness = sigmoid_cross_entropy(logits, matches >= 0, where=sampled)
    return {
        "objectness": Average.of(objectness, where=sampled),
        "rpn_box": _box_term(deltas, anchors, matches, targets, sampled, _RPN_WEIGHTS, beta),
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
    """Loss of the box head of Fast R-CNN: classes and boxes of proposals.

    Classes: `Σ_i CE(x_i, c_i) / Σ_i 1`, where `c_i` is 0 for background and 1 + the class of an
    object. Boxes: `Σ_i [c_i > 0] Σ_k ℓ_β(t_{i,c_i,k} − t̂_ik) / Σ_i 1`, the smooth L1 loss (as in
    `rpn_loss`) of the deltas of the object's class. The sums run over the sampled proposals.

    Args:
      class_logits: `[*b, p, classes + 1]`, logits `x`; the first class is "background".
      deltas: `[*b, p, classes + 1, 4]`, shifts and scales `t` for each class; those of the
        background are not used.
      proposals: `[*b, p, 4]`, xyxy in pixels.
      matches: `[*b, p]`, from `matching.match_proposals`: index of the matched object, -1 for
        background, -2 to ignore.
      targets: Padded objects; only `boxes` `[*b, n, 4]` (xyxy in pixels) and `classes` `[*b, n]`
        are used. Proposals whose object has a class outside 0..classes−1 are ignored.
      where: `[*b, p]`, False for proposals that are not sampled, whose values may be anything.
      weights: The four weights of the box encoding, as in `ops.encode_boxes`.
      beta: `β` of the smooth L1 loss, at least 0; 0 makes it the L1 loss.

    Returns:
      Scalar averages `class` and `box`; their weight is the number of sampled proposals.

    Raises:
      ValueError: If the shapes do not fit together, or `beta` is below 0.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> from segjax.typing import Instances
      >>> box = jnp.array([[0.0, 0.0, 4.0, 4.0]])
      >>> target = Instances(box, jnp.array([0]), jnp.array([True]))
      >>> logits, deltas = jnp.zeros((1, 2)), jnp.ones((1, 2, 4))
      >>> terms = losses.box_head_loss(logits, deltas, box, jnp.array([0]), target, beta=0.0)
      >>> {name: round(float(term.value), 4) for name, term in terms.items()}
      {'class': 0.6931, 'box': 4.0}

    References:
      Girshick, "Fast R-CNN", 2015, equations 1 to 3; normalised as in torchvision.
    """
    _check("class_logits", class_logits, (*matches.shape, *class_logits.shape[-1:]))
    _check("deltas", deltas, (*class_logits.shape, 4))
    _check("proposals", proposals, (*matches.shape, 4))
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
    """Loss of the mask head of Mask R-CNN: binary cross-entropy of the mask of the matched class.

    `Σ_i [c_i > 0] mean_uv BCE(x_{i,u,v,c_i}, m_iuv) / Σ_i [c_i > 0]`, where `m_i` is the mask of
    the object, cropped to the proposal as in `ops.crop_masks`. Masks of other classes have no loss.

    Args:
      mask_logits: `[*b, p, oh, ow, classes + 1]`, logits `x`; those of the background are not used.
      proposals: `[*b, p, 4]`, xyxy in pixels, inside the image.
      matches: `[*b, p]`, from `matching.match_proposals`: index of the matched object, negative for
        proposals without one.
      targets: Padded objects; only `masks` `[*b, n, h, w]` and `classes` `[*b, n]` are used.
        Proposals whose object has a class outside 0..classes−1 are ignored.
      where: `[*b, p]`, False for proposals that are not sampled, whose values may be anything.
      pixels: `[*b, h, w]`, False for void pixels; bins that contain any are left out of the mean.

    Returns:
      A scalar average `mask`; its weight is the number of sampled proposals with an object.

    Raises:
      ValueError: If the shapes do not fit together, or the targets have no masks.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> from segjax.typing import Instances
      >>> box, mask = jnp.array([[0.0, 0.0, 4.0, 4.0]]), jnp.ones((1, 4, 4), bool)
      >>> target = Instances(box, jnp.array([0]), jnp.array([True]), masks=mask)
      >>> terms = losses.mask_head_loss(jnp.zeros((1, 2, 2, 2)), box, jnp.array([0]), target)
      >>> round(float(terms["mask"].value), 4)
      0.6931

    References:
      He et al., "Mask R-CNN", 2017, section 3, "Mask Representation".
    """
    shape = None if targets.masks is None else targets.masks.shape
    if shape is None or shape[:-2] != targets.classes.shape:
        raise ValueError(f"targets.masks: expected bool [*b, n, h, w], got {shape}")
    if pixels is not None:
        _check("pixels", pixels, (*matches.shape[:-1], *shape[-2:]))
    _check("mask_logits", mask_logits, (*matches.shape, *mask_logits.shape[-3:]))
    _check("proposals", proposals, (*matches.shape, 4))
    labels, sampled = _labels(matches, targets, mask_logits.shape[-1], where)
    positive = sampled & (matches >= 0)
    logits = jnp.take_along_axis(mask_logits, labels[..., None, None, None], axis=-1)[..., 0]
    dtype = accumulation_dtype(mask_logits, proposals)
    boxes = jax.lax.stop_gradient(jnp.where(positive[..., None], proposals, 0)).astype(dtype)
    size = (logits.shape[-2], logits.shape[-1])

    def targets_of_image(boxes, matches, masks, pixels):
        """Masks cropped to the proposals, and bins without void pixels; both `[p, oh, ow]`."""
        mask = crop_masks(masks, boxes, matches, size)
        if pixels is None:
            return mask, jnp.ones_like(mask, bool)
        return mask, crop_masks(~pixels[None], boxes, jnp.zeros_like(matches), size) == 0

    images = [
        None if x is None else jax.lax.collapse(jnp.asarray(x), 0, matches.ndim - 1)
        for x in (boxes, matches, targets.masks, pixels)
    ]
    targets_of_images = map_shards(jax.vmap(targets_of_image), *images)
    crops, counts = (x.reshape(logits.shape) for x in targets_of_images)
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
    """The smooth L1 loss of proposals with an object, averaged over all that are sampled."""
    if beta < 0:
        raise ValueError(f"beta: expected at least 0, got {beta}")
    check_boxes("targets.boxes", targets.boxes)
    positive = (sampled & (matches >= 0))[..., None]
    encoded = encode_boxes(_matched(targets.boxes, matches), proposals, weights=weights)
    differences = jnp.where(positive, deltas - jax.lax.stop_gradient(encoded), 0)
    return Average.of(jnp.sum(_smooth_l1(differences, beta), axis=-1), where=sampled)


def _smooth_l1(differences: jax.Array, beta: float) -> jax.Array:
    size = jnp.maximum(differences, -differences)  # |d| with derivative 0 at 0
    if beta == 0:
        return size
    return jnp.where(size < beta, differences**2 / (2 * beta), size - beta / 2)


def _sampled(matches: Array, where: Array | None) -> jax.Array:
    return broadcast_where(where, matches.shape) & (matches >= BACKGROUND)


def _labels(
    matches: Array, targets: Instances, outputs: int, where: Array | None
) -> tuple[jax.Array, jax.Array]:
    """Labels `[*b, p]`, 0 for background and 1 + the class of an object; and which proposals count.

    Proposals whose object has an unknown class do not count.
    """
    classes, known = valid_labels(targets.classes, outputs - 1, name="targets.classes")
    labels = _matched(jnp.where(known, classes + 1, -1), matches)
    return valid_labels(labels, outputs, where=_sampled(matches, where))


def _matched(values: Array, matches: Array) -> jax.Array:
    """The value of each proposal's object, from `[*b, n, ...]` to `[*b, p, ...]`; 0 without one.

    A sum instead of a gather, so that it works without any objects.
    """
    batch = matches.shape[:-1]
    if values.ndim < matches.ndim or values.shape[: len(batch)] != batch:
        raise ValueError(
            f"targets: expected the batch axes of matches, {batch}, got {values.shape}"
        )
    objects = values.shape[len(batch)]
    is_match = matches[..., :, None] == jnp.arange(objects)
    axis = matches.ndim
    trailing = tuple(range(axis + 1, axis + 1 + values.ndim - matches.ndim))
    chosen = jnp.expand_dims(is_match, trailing)
    return jnp.sum(jnp.where(chosen, jnp.expand_dims(values, axis - 1), 0), axis=axis)


def _check(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
