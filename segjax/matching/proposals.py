"""Proposals and their objects: many to one, by overlap; and a balanced random sample of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer

from segjax.numerics import broadcast_where, safe_divide
from segjax.ops.boxes import box_area
from segjax.ops.overlap import box_iou
from segjax.typing import Array, Instances

# What a proposal without an object is matched to.
BACKGROUND, NEITHER = -1, -2


def match_proposals(
    proposals: Float[Array, "*b p 4"],
    targets: Instances,
    *,
    high: float,
    low: float,
    allow_low_quality: bool = False,
    crowd_threshold: float = 0.7,
    where: Bool[Array, "*b p"] | None = None,
) -> Int[jax.Array, "*b p"]:
    """The object of each proposal: that of the highest IoU, if it is high enough.

    `j_i = argmax_j IoU(P_i, B_j)` where the IoU is `high` or more; -1, background, where it is
    below `low`; and -2, neither, between the two. With `allow_low_quality` a proposal also gets
    `j_i` if no other one overlaps one of the objects more, so that no object is left out: the rule
    for anchors, few of which fit an object well.

    Args:
      proposals: `[*b, p, 4]`, xyxy in pixels: proposals or anchors.
      targets: padded objects: `boxes` `[*b, n, 4]` and `valid` `[*b, n]`; `crowd` marks those that
        no proposal is matched with.
      high: the least IoU with a proposal's object, in 0..1; 0.7 for anchors, 0.5 for proposals.
      low: the IoU below which a proposal is background; 0.3 for anchors, 0.5 for proposals.
      allow_low_quality: whether every object keeps its best proposals, equal ones included.
      crowd_threshold: the share of a proposal's area within a crowd, above which it is neither
        where it would be background: the crowd is made of objects that nobody outlined.
      where: `[*b, p]`, False for proposals that are padding: they are neither.

    Returns:
      int32 `[*b, p]`, in 0..n−1, -1 or -2. In an image without objects all is background.

    Raises:
      ValueError: if the shapes do not fit together, or `0 ≤ low ≤ high` does not hold.
      TypeError: if `where` is not boolean.

    Example:
      >>> object = Instances(jnp.array([[0.0, 0.0, 4.0, 4.0]]), jnp.array([7]), jnp.array([True]))
      >>> proposals = jnp.array([[0, 0, 4, 3], [0, 0, 4, 2], [3, 3, 5, 5]], jnp.float32)
      >>> match_proposals(proposals, object, high=0.7, low=0.3)
      Array([ 0, -2, -1], dtype=int32)

    References:
      Ren et al., "Faster R-CNN", 2015, section 3.1.2; Girshick et al., "Detectron", 2018
      (crowds).
    """
    if not 0 <= low <= high:
        raise ValueError(f"low is {low} and high {high}; due is 0 <= low <= high")
    where = broadcast_where(where, proposals.shape[:-1])
    is_crowd = jnp.zeros_like(targets.valid) if targets.crowd is None else targets.crowd
    overlap = box_iou(targets.boxes, proposals)
    if overlap.shape[-2] == 0:
        return jnp.where(where, BACKGROUND, NEITHER).astype(jnp.int32)
    is_object = targets.valid & ~is_crowd
    iou = jnp.where(is_object[..., :, None] & where[..., None, :], overlap, -1)

    best, object_of = jnp.max(iou, axis=-2), jnp.argmax(iou, axis=-2).astype(jnp.int32)
    matches = jnp.where(best >= low, NEITHER, BACKGROUND)
    matches = jnp.where(best >= high, object_of, matches)
    if allow_low_quality:
        # torchvision matches every proposal where none meets an object: all of them tie at IoU 0.
        of_object = jnp.max(iou, axis=-1, keepdims=True, initial=0)
        is_best = jnp.any((iou == of_object) & (iou > 0), axis=-2)
        matches = jnp.where(is_best, object_of, matches)
    if targets.crowd is not None:
        shares = _shares_inside(overlap, proposals, targets.boxes)
        in_crowd = (targets.valid & is_crowd)[..., :, None] & (shares > crowd_threshold)
        ignored = (matches == BACKGROUND) & jnp.any(in_crowd, axis=-2)
        matches = jnp.where(ignored, NEITHER, matches)
    return jnp.where(where, matches, NEITHER)


def _shares_inside(iou: Array, proposals: Array, boxes: Array) -> jax.Array:
    """`[*b, n, p]`: `|P ∩ B| / |P|`, by `IoU = |P ∩ B| / (|P| + |B| − |P ∩ B|)`."""
    area = box_area(proposals)[..., None, :]
    both = area + box_area(boxes)[..., :, None]
    return safe_divide(iou * both / (1 + iou), area)


def sample_proposals(
    key: jax.Array,
    matches: Integer[Array, "*b p"],
    *,
    count: int,
    positive_fraction: float,
) -> tuple[Int[jax.Array, "*b {count}"], Bool[jax.Array, "*b {count}"]]:
    """A random sample of an image's proposals, a share of them matched with objects.

    At most `⌊count · positive_fraction⌋` are positive (matched with an object), and background
    fills up the rest. Where there are fewer of either, all of them are taken. Every sample of that
    kind is as likely as any other.

    Args:
      key: random keys `[*b]`, one for each image.
      matches: `[*b, p]`, as of `match_proposals`.
      count: how many are due, static: 256 anchors, or 512 proposals.
      positive_fraction: in 0..1: ½ for anchors, ¼ for proposals.

    Returns:
      indices: int32 `[*b, count]` in 0..p−1, no two valid ones alike. Positive ones come first,
      so that all are among the first `⌊count · positive_fraction⌋`.
      valid: `[*b, count]`, False where there was none to take; the index is then any.

    Raises:
      ValueError: if the shapes do not fit together, there is no proposal, or an option is out of
        range.

    Example:
      >>> matches = jnp.array([-1, -2, 3, 0, 0, -1])
      >>> indices, valid = sample_proposals(
      ...     jax.random.key(0), matches, count=4, positive_fraction=0.25
      ... )
      >>> matches[indices][1:3], valid.astype(int)
      (Array([-1, -1], dtype=int32), Array([1, 1, 1, 0], dtype=int32))

    References:
      Ren et al., "Faster R-CNN", 2015, section 3.1.3.
    """
    *batch, proposals = matches.shape
    if key.shape != tuple(batch):
        raise ValueError(f"key: expected shape {tuple(batch)}, one for each image, got {key.shape}")
    if not proposals:
        raise ValueError(f"matches: expected shape at least one proposal, got {matches.shape}")
    if count < 1 or not 0 <= positive_fraction <= 1:
        raise ValueError(
            f"count is {count}, positive_fraction {positive_fraction}; due are at least 1 and 0..1"
        )
    draw = jax.vmap(lambda key: jax.random.uniform(key, (proposals,)))
    order = draw(key.reshape(-1)).reshape(matches.shape)

    def first(kind, most):
        """Of the proposals of a kind the first in random order, and how many these are."""
        most = min(most, proposals)
        indices = jax.lax.top_k(jnp.where(kind, order, -1), most)[1]
        number = jnp.minimum(jnp.sum(kind, axis=-1, keepdims=True), most)
        return indices, number

    positives, taken = first(matches >= 0, int(count * positive_fraction))
    negatives, others = first(matches == BACKGROUND, count)
    # Place i holds the i-th positive one, or else the next negative one.
    place = jnp.arange(count)
    candidates = jnp.concatenate([positives, negatives], axis=-1)
    place_of = jnp.where(place < taken, place, place - taken + positives.shape[-1])
    indices = jnp.take_along_axis(candidates, place_of, axis=-1, mode="clip")
    return indices.astype(jnp.int32), place < taken + others
