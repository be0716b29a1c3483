"""From what a detector's stages say of anchors and proposals to objects with masks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from segjax.inference.masks import Shape
from segjax.numerics import accumulation_dtype, broadcast_where
from segjax.ops.boxes import clip_boxes
from segjax.ops.coding import decode_boxes
from segjax.ops.masks import paste_masks
from segjax.ops.suppression import batched_nms, matrix_nms, soft_nms
from segjax.typing import Array, Instances

_SUPPRESSIONS = ("hard", "soft", "matrix")
# Masks that are pasted at once: all of them at full size would fill the memory.
_CHUNK = 8


def rpn_proposals(
    logits: Sequence[Float[Array, "_"]],
    deltas: Sequence[Float[Array, "_ 4"]],
    anchors: Sequence[Float[Array, "_ 4"]],
    shape: Shape | Int[Array, "2"],
    *,
    most_of_level: int = 1000,
    max_proposals: int = 1000,
    iou_threshold: float = 0.7,
    min_side: float = 1e-3,
) -> Instances:
    """The boxes of an image in which the first stage expects objects, the surest first.

    Of each level of the pyramid the `most_of_level` best anchors become boxes, which are clipped to
    the image; those of a level suppress one another, and the best of all that are left stay.

    Args:
      logits: of each level `[a]`: the objectness of each anchor; −inf for none that counts.
      deltas: of each level `[a, 4]`, as of `ops.decode_boxes` with weights 1.
      anchors: of each level `[a, 4]`, xyxy in pixels.
      shape: (height, width) of the image in pixels: two numbers, or an array `[2]`.
      most_of_level: how many of a level are looked at.
      max_proposals: n, how many remain at most.
      iou_threshold: above which a surer box suppresses another of its level.
      min_side: the least height and width in pixels.

    Returns:
      Boxes `[n]`, the levels' numbers as their classes, and scores, the sigmoid of the logits.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> anchors = [jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0]])]
      >>> logits, deltas = [jnp.array([2.0, 3.0])], [jnp.zeros((2, 4))]
      >>> found = rpn_proposals(logits, deltas, anchors, (8, 8), max_proposals=2)
      >>> found.boxes[0], found.valid
      (Array([0., 0., 4., 5.], dtype=float32), Array([ True, False], dtype=bool))

    References:
      Ren et al., "Faster R-CNN", 2015, section 3.3; Lin et al., "Feature pyramid networks for
      object detection", 2017, section 4.1.
    """
    boxes, scores, levels = [], [], []
    for level, (x, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
        best, indices = lax.top_k(x, min(most_of_level, len(x)))
        boxes.append(decode_boxes(delta[indices], jnp.asarray(anchor)[indices]))
        scores.append(best.astype(accumulation_dtype(best)))
        levels.append(jnp.full(best.shape, level, jnp.int32))
    box, score, level_of = map(jnp.concatenate, (boxes, scores, levels))
    box = clip_boxes(box, shape)
    keep = _has_sides(box, min_side) & (score > -jnp.inf)
    keep = batched_nms(box, score, level_of, iou_threshold=iou_threshold, where=keep)
    return _best(box, level_of, jax.nn.sigmoid(score), keep, max_proposals, order=score)


def detect_objects(
    class_logits: Float[Array, "p classes"],
    deltas: Float[Array, "p classes 4"],
    proposals: Float[Array, "p 4"],
    shape: Shape | Int[Array, "2"],
    *,
    where: Bool[Array, "..."] | None = None,
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    suppression: str = "hard",
    max_detections: int = 100,
    max_candidates: int = 2000,
    min_side: float = 1e-2,
) -> Instances:
    """The objects of an image, out of the second stage's classes and boxes, the surest first.

    Every pair of a proposal and a class is a candidate with the score `softmax(class_logits)`, if
    that is above `score_threshold`; candidates of a class suppress one another.

    Args:
      class_logits: `[p, classes + 1]`; the first is "background".
      deltas: `[p, classes + 1, 4]`, those of each class.
      proposals: `[p, 4]`, xyxy in pixels.
      shape: (height, width) of the image in pixels: two numbers, or an array `[2]`.
      where: broadcasts to `[p]`; False for padding.
      weights: the four `λ` that the deltas are encoded with, as of `ops.encode_boxes`.
      score_threshold: what a score must exceed.
      iou_threshold: for "hard", the IoU above which a surer candidate suppresses another; the
        other two do without.
      suppression: "hard" (`ops.nms`), or scores lowered by overlap: "soft" (`ops.soft_nms`),
        "matrix" (`ops.matrix_nms`).
      max_detections: n, how many objects remain at most.
      max_candidates: how many candidates, the surest, take part. Of 19 a proposal at most the score
        is above 0.05, and of few in practice.
      min_side: the least height and width in pixels.

    Returns:
      Objects `[n]` without masks; their classes count from 0, background apart.

    Raises:
      ValueError: if the shapes do not fit together, or `suppression` is unknown.

    Example:
      >>> logits, box = jnp.array([[0.0, 9.0, 0.0]]), jnp.array([[1.0, 1.0, 5.0, 4.0]])
      >>> found = detect_objects(logits, jnp.zeros((1, 3, 4)), box, (8, 8), max_detections=1)
      >>> found.boxes, found.classes
      (Array([[1., 1., 5., 4.]], dtype=float32), Array([0], dtype=int32))

    References:
      Girshick, "Fast R-CNN", 2015, section 2.2; He et al., "Mask R-CNN", 2017, section 3.1.
    """
    if suppression not in _SUPPRESSIONS:
        raise ValueError(f"suppression is {suppression!r}; due is one of {_SUPPRESSIONS}")
    if deltas.shape != (*class_logits.shape, 4) or class_logits.shape[-1] < 2:
        raise ValueError(
            f"class_logits has shape {class_logits.shape}, deltas {deltas.shape}; due are "
            "[p, classes + 1] and [p, classes + 1, 4]"
        )
    where = broadcast_where(where, proposals.shape[:1])
    class_logits, deltas, proposals = (
        jnp.where(jnp.expand_dims(where, range(1, x.ndim)), x, 0)
        for x in (class_logits, deltas, proposals)
    )
    probs = jax.nn.softmax(class_logits.astype(accumulation_dtype(class_logits)))[:, 1:]
    probs = jnp.where(where[:, None] & (probs > score_threshold), probs, 0)
    scores, pairs = lax.top_k(probs.ravel(), min(max_candidates, probs.size))
    rows, classes = jnp.divmod(pairs.astype(jnp.int32), probs.shape[-1])
    deltas = deltas[rows, classes + 1]
    boxes = clip_boxes(decode_boxes(deltas, proposals[rows], weights=weights), shape)
    keep = (scores > 0) & _has_sides(boxes, min_side)
    if suppression == "hard":
        keep = batched_nms(boxes, scores, classes, iou_threshold=iou_threshold, where=keep)
    elif suppression == "soft":
        # Of other classes, far away.
        apart = classes[:, None] * (jnp.max(boxes, initial=0) + 1)
        scores = soft_nms(boxes + apart, scores, where=keep)
    else:
        scores = matrix_nms(boxes, scores, classes, where=keep)
    keep &= scores > score_threshold
    return _best(boxes, classes, scores, keep, max_detections, order=scores)


def paste_objects(
    objects: Instances, mask_logits: Float[Array, "*b n mh mw"], shape: Shape
) -> Instances:
    """Objects with the masks that a mask head gave of their boxes, at the image's size.

    A pixel is the object's where the pasted probability is above one half.

    Args:
      objects: `[*b, n]`, with boxes in pixels of the image.
      mask_logits: `[*b, n, mh, mw]`.
      shape: (height, width) of the image in pixels.

    Returns:
      The objects with masks `[*b, n, height, width]`; one without a pixel is not valid.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> boxes = jnp.array([[1.25, 1.25, 2.75, 2.75]])
      >>> objects = Instances(boxes, jnp.array([0]), jnp.array([True]))
      >>> paste_objects(objects, jnp.ones((1, 2, 2)), (3, 4)).masks.astype(int)
      Array([[[0, 0, 0, 0],
              [0, 1, 1, 0],
              [0, 1, 1, 0]]], dtype=int32)

    References:
      He et al., "Mask R-CNN", 2017, section 3.1, "Inference".
    """
    lead = objects.boxes.shape[:-1]
    if mask_logits.shape[:-2] != lead:
        raise ValueError(f"mask_logits has shape {mask_logits.shape}; due is [*{lead}, mh, mw]")
    logits = mask_logits.astype(accumulation_dtype(mask_logits))
    probs = jax.nn.sigmoid(logits).reshape(-1, *logits.shape[-2:])

    def paste(one):
        mask, box = one
        return paste_masks(mask[None], box[None], shape)[0] > 0.5

    boxes = objects.boxes.reshape(-1, 4)
    masks = lax.map(paste, (probs, boxes), batch_size=_CHUNK).reshape(*lead, *shape)
    masks &= objects.valid[..., None, None]
    return Instances(
        objects.boxes, objects.classes, masks.any((-2, -1)), scores=objects.scores, masks=masks
    )


def _has_sides(boxes: jax.Array, least: float) -> jax.Array:
    return jnp.all(boxes[..., 2:] - boxes[..., :2] >= least, axis=-1)


def _best(
    boxes: jax.Array,
    classes: jax.Array,
    scores: jax.Array,
    keep: jax.Array,
    most: int,
    *,
    order: jax.Array,
) -> Instances:
    """The `most` best that are kept, and padding."""
    missing = max(most - len(boxes), 0)
    boxes, classes, scores, keep, order = (
        jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)])
        for x in (boxes, classes, scores, keep, order)
    )
    _, rows = lax.top_k(jnp.where(keep, order, -jnp.inf), most)
    return Instances(boxes[rows], classes[rows], keep[rows], scores=scores[rows])
