"""Inference of two-stage detectors: proposals, objects, and their masks."""

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
# Number of masks pasted at once; all of them at full size would take too much memory.
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
    """Region proposals: the highest-scoring boxes of the first stage, by falling score.

    The `most_of_level` best anchors of each pyramid level are decoded to boxes, clipped to the
    image and suppressed (NMS) within their level; the best of all that are left are returned.

    Args:
      logits: objectness of each anchor, `[a]` for each level; −inf drops an anchor.
      deltas: encoded boxes, `[a, 4]` for each level, as in `ops.decode_boxes` with weights 1.
      anchors: `[a, 4]` for each level, xyxy in pixels.
      shape: (height, width) of the image in pixels: two numbers, or an array `[2]`.
      most_of_level: number of anchors taken from each level.
      max_proposals: n, the largest number of proposals.
      iou_threshold: IoU above which a box suppresses one of lower score in its level.
      min_side: least height and width of a box, in pixels.

    Returns:
      Instances `[n]`: boxes, scores (the sigmoid of the logits), and the number of the level as
      class.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> anchors = [jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0]])]
      >>> logits, deltas = [jnp.array([2.0, 3.0])], [jnp.zeros((2, 4))]
      >>> found = inference.rpn_proposals(logits, deltas, anchors, (8, 8), max_proposals=2)
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
    """Objects from the second stage's classes and boxes, by falling score.

    Every pair of a proposal and a class is a candidate with the score `softmax(class_logits)`, if
    that is above `score_threshold`; candidates of a class suppress each other (NMS).

    Args:
      class_logits: `[p, classes + 1]`; the first is "background".
      deltas: `[p, classes + 1, 4]`, encoded boxes for each class.
      proposals: `[p, 4]`, xyxy in pixels.
      shape: (height, width) of the image in pixels: two numbers, or an array `[2]`.
      where: broadcasts to `[p]`; False for padding.
      weights: the four factors that the deltas are encoded with, as in `ops.encode_boxes`.
      score_threshold: scores must be above it.
      iou_threshold: IoU above which a candidate suppresses one of lower score; for "hard" only.
      suppression: "hard" (`ops.nms`), or lower scores where boxes overlap: "soft" (`ops.soft_nms`)
        or "matrix" (`ops.matrix_nms`).
      max_detections: n, the largest number of objects.
      max_candidates: number of candidates, the highest-scoring ones, that are considered.
      min_side: least height and width of a box, in pixels.

    Returns:
      Objects `[n]` without masks; classes are numbered from 0, without the background.

    Raises:
      ValueError: if the shapes do not fit together, or `suppression` is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> logits, box = jnp.array([[0.0, 9.0, 0.0]]), jnp.array([[1.0, 1.0, 5.0, 4.0]])
      >>> deltas = jnp.zeros((1, 3, 4))
      >>> found = inference.detect_objects(logits, deltas, box, (8, 8), max_detections=1)
      >>> found.boxes, found.classes
      (Array([[1., 1., 5., 4.]], dtype=float32), Array([0], dtype=int32))

    References:
      Girshick, "Fast R-CNN", 2015, section 2.2; He et al., "Mask R-CNN", 2017, section 3.1.
    """
    if suppression not in _SUPPRESSIONS:
        raise ValueError(f"suppression: expected one of {_SUPPRESSIONS}, got {suppression!r}")
    if deltas.shape != (*class_logits.shape, 4) or class_logits.shape[-1] < 2:
        raise ValueError(
            "class_logits, deltas: expected [p, classes + 1] and [p, classes + 1, 4], got "
            f"{class_logits.shape} and {deltas.shape}"
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
        # Boxes of different classes are shifted apart.
        apart = classes[:, None] * (jnp.max(boxes, initial=0) + 1)
        scores = soft_nms(boxes + apart, scores, where=keep)
    else:
        scores = matrix_nms(boxes, scores, classes, where=keep)
    keep &= scores > score_threshold
    return _best(boxes, classes, scores, keep, max_detections, order=scores)


def paste_objects(
    objects: Instances, mask_logits: Float[Array, "*b n mh mw"], shape: Shape
) -> Instances:
    """Pastes the masks of a mask head into the image, and adds them to their objects.

    A pixel belongs to the object if the pasted probability is above 0.5.

    Args:
      objects: `[*b, n]`, with boxes in pixels of the image.
      mask_logits: `[*b, n, mh, mw]`.
      shape: (height, width) of the image in pixels.

    Returns:
      The objects with masks `[*b, n, height, width]`; those without a pixel are not valid.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> from segjax.typing import Instances
      >>> boxes = jnp.array([[1.25, 1.25, 2.75, 2.75]])
      >>> objects = Instances(boxes, jnp.array([0]), jnp.array([True]))
      >>> inference.paste_objects(objects, jnp.ones((1, 2, 2)), (3, 4)).masks.astype(int)
      Array([[[0, 0, 0, 0],
              [0, 1, 1, 0],
              [0, 1, 1, 0]]], dtype=int32)

    References:
      He et al., "Mask R-CNN", 2017, section 3.1, "Inference".
    """
    lead = objects.boxes.shape[:-1]
    if mask_logits.shape[:-2] != lead:
        raise ValueError(f"mask_logits: expected shape [*{lead}, mh, mw], got {mask_logits.shape}")
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
    """The `most` best of those to keep, padded."""
    missing = max(most - len(boxes), 0)
    boxes, classes, scores, keep, order = (
        jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)])
        for x in (boxes, classes, scores, keep, order)
    )
    _, rows = lax.top_k(jnp.where(keep, order, -jnp.inf), most)
    return Instances(boxes[rows], classes[rows], keep[rows], scores=scores[rows])
