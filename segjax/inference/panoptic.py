"""Panoptic segmentation from queries: masks and classes to segments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from segjax.inference.masks import Shape, check_queries, check_things, on_picture, resize_masks
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array, Panoptic

_RULES = ("mask2former", "maskformer", "transformers")


def panoptic_segmentation(
    class_logits: Float[Array, "*b q classes"],
    mask_logits: Float[Array, "*b q h w"],
    things: Bool[Array, "things"],
    shape: Shape,
    *,
    rule: str = "mask2former",
    score_threshold: float = 0.8,
    mask_threshold: float = 0.5,
    overlap_threshold: float = 0.8,
    canvas: Shape | None = None,
    size: Shape | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Panoptic:
    """Panoptic segmentation: each pixel goes to the query `argmax_k s_k m_k`, or becomes void.

    With `s_k, c_k` the largest probability in `softmax(class_logits)` of query k and its class, and
    `m_k = sigmoid(mask_logits)` at the size of the picture:

    1. queries with `c_k` "no object" or `s_k ≤ score_threshold` are dropped;
    2. each pixel is assigned to the remaining query with the largest `s_k m_k`;
    3. a query with fewer pixels than `overlap_threshold` times its mask `m_k ≥ mask_threshold` is
       dropped, and its pixels become void;
    4. a query's segment is its pixels within its mask, and those outside become void; queries of
       the same stuff class share the segment of the first.

    This is the rule "mask2former", which EoMT uses too. With "maskformer", pixels outside the mask
    stay in the segment. So they do with "transformers", but the mask is `s_k m_k ≥ mask_threshold`,
    the share must be above `overlap_threshold`, and `m_k` is resized in place of the logits. This
    is Hugging Face's rule for DETR and MaskFormer (`canvas=None`) and Mask2Former (`canvas=(384,
    384)`), with `score_threshold=0.5`.

    Queries are processed one after the other, so that memory does not grow with their number.

    Args:
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      mask_logits: `[*b, q, h, w]`, at any stride.
      things: `[classes]`, which classes are things, whose queries are never merged.
      shape: (height, width) of the picture, in pixels.
      rule: "mask2former", "maskformer" or "transformers".
      score_threshold: a query's class probability must be above it.
      mask_threshold: least probability of the pixels of a mask.
      overlap_threshold: least share of a query's mask that is assigned to it.
      canvas: (height, width) of the images that the model saw, in pixels, if the picture fills only
        a part of them: masks are resized to the canvas, cropped to `size` and resized to
        `shape`. None resizes them at once.
      size: (height, width) of the picture at the top left of the canvas; None for all of it.
      where: broadcasts to `[*b, height, width]`; False for void pixels, which belong to no mask.

    Returns:
      The segments `[*b, height, width]`; the table has a row for each query, valid if it has a
      segment of its own, with its class and class probability (0 and 0 otherwise).

    Raises:
      ValueError: if the shapes do not fit together, or `rule` is unknown.
      TypeError: if `things` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> class_logits = jnp.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
      >>> mask_logits = jnp.array([[[5.0, 5.0, -5.0, -5.0]], [[-5.0, -5.0, 5.0, -5.0]]])
      >>> things = jnp.array([True, False])
      >>> result = inference.panoptic_segmentation(class_logits, mask_logits, things, (1, 4))
      >>> result.segments, result.classes
      (Array([[ 0,  0,  1, -1]], dtype=int32), Array([0, 1], dtype=int32))

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic segmentation",
      2021, section 3.4, and "Masked-attention mask transformer", 2022, with the authors' code.
    """
    check_queries(class_logits, mask_logits)
    check_things(things, class_logits)
    if rule not in _RULES:
        raise ValueError(f"rule: expected one of {', '.join(_RULES)}, got {rule!r}")
    thresholds = score_threshold, mask_threshold, overlap_threshold

    def mask_probs(logits):
        logits = on_picture(logits, canvas=canvas, size=size)
        if rule == "transformers":
            return resize_masks(jax.nn.sigmoid(logits), shape)
        return jax.nn.sigmoid(resize_masks(logits, shape))

    fuse = functools.partial(_fuse, jnp.asarray(things), mask_probs, rule, thresholds)
    signature = "(q,c),(q,h,w),(y,x)->(y,x),(q),(q),(q)"
    segments, classes, valid, scores = jnp.vectorize(fuse, signature=signature)(
        jnp.asarray(class_logits, accumulation_dtype(class_logits)),
        lax.stop_gradient(jnp.asarray(mask_logits)),
        broadcast_where(where, (*class_logits.shape[:-2], *shape)),
    )
    return Panoptic(segments, classes, valid, scores=scores)


def _above(threshold: float) -> np.float32:
    """The least float32 above it: Hugging Face compares a float32 share with a Python float.

    So with 0.5 half a mask is not enough, but with 0.8 four fifths are, which float32 rounds up.
    """
    nearest = np.float32(threshold)
    return nearest if float(nearest) > threshold else np.nextafter(nearest, np.float32(np.inf))


def _fuse(things, mask_probs, rule, thresholds, class_logits, mask_logits, where):
    """The segments, and their classes, validity and scores, of one picture."""
    score_threshold, mask_threshold, overlap_threshold = thresholds
    probs = jax.nn.softmax(class_logits)
    scores, classes = probs.max(axis=-1), jnp.argmax(probs, axis=-1).astype(jnp.int32)
    kept = (classes < things.size) & (scores > score_threshold)
    rows = jnp.arange(classes.size, dtype=jnp.int32)
    nobody = jnp.int32(classes.size)
    kept_first = jnp.argsort(~kept, stable=True)

    def add_query(i, state):
        best, winner, inside, areas = state
        k = kept_first[i]
        mask = mask_probs(mask_logits[k])
        weighted = scores[k] * mask
        covered = (weighted if rule == "transformers" else mask) >= mask_threshold
        wins = weighted > best  # of equals the first
        return (
            jnp.where(wins, weighted, best),
            jnp.where(wins, rows[k], winner),
            jnp.where(wins, covered, inside),
            areas.at[k].set(jnp.sum(covered & where, dtype=jnp.int32)),
        )

    # Made from arguments, so that under `shard_map` they vary over the same devices.
    best = jnp.full_like(mask_logits, -1, scores.dtype, shape=where.shape)
    start = best, jnp.full_like(best, nobody, jnp.int32), best > 0, jnp.zeros_like(classes)
    _, winner, inside, areas = lax.fori_loop(0, kept.sum(), add_query, start)

    def count(pixels):
        return jnp.zeros_like(classes).at[jnp.where(pixels, winner, nobody)].add(1, mode="drop")

    own = where & inside if rule == "mask2former" else where
    share = safe_divide(count(where), areas)
    enough = share >= (_above(overlap_threshold) if rule == "transformers" else overlap_threshold)
    exists = kept & (areas > 0) & enough & (count(own) > 0)

    merged = exists & ~things[classes]
    same = merged[:, None] & merged & (classes[:, None] == classes)
    # Each segment has a number of its own. In transformers the first thing after a merged piece
    # gets one that is taken, so that two objects become one.
    segment = jnp.where(merged, jnp.argmax(same, axis=-1).astype(jnp.int32), rows)
    table = jnp.append(jnp.where(exists, segment, -1), -1)
    valid = exists & (segment == rows)
    return (
        jnp.where(own, table[winner], -1),
        jnp.where(valid, classes, 0),
        valid,
        jnp.where(valid, scores, 0),
    )
