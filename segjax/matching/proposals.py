"""Matching of anchors and proposals to objects by IoU, and balanced random sampling of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer

from segjax.numerics import broadcast_where, safe_divide
from segjax.ops.boxes import box_area
from segjax.ops.overlap import box_iou, check_box_pairs
from segjax.typing import Array, Instances

# Matches of proposals without an object.
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
    """Match each proposal or anchor to the object with the highest IoU.

    The match is `argmax_j IoU(P_i, B_j)` if that IoU is at least `high`; -1 (background) if it is
    below `low`; and -2 (ignored) in between. With `allow_low_quality` the proposals with the
    highest IoU of each object are matched too, so that every object has a match. This is the rule
    for anchors, few of which fit an object well.

    Args:
      proposals: `[*b, p, 4]`, xyxy in pixels: proposals or anchors.
      targets: Padded objects: `boxes` `[*b, n, 4]` (xyxy in pixels) and `valid` `[*b, n]`; objects
        marked by `crowd` are not matched.
      high: Least IoU of a match, in 0..1: 0.7 for anchors, 0.5 for proposals.
      low: IoU below which a proposal is background: 0.3 for anchors, 0.5 for proposals.
      allow_low_quality: Whether to match the best proposals of each object, including ties.
      crowd_threshold: Background proposals with a greater fraction of their area in a crowd are
        ignored, as they may contain objects that are not annotated.
      where: `[*b, p]`, False for padding, which is ignored.

    Returns:
      Index of the matched object, int32 `[*b, p]` in 0..n−1, or -1 for background, -2 to ignore.
      In an image without objects all proposals are background.

    Raises:
      ValueError: If the shapes do not fit together, or `0 ≤ low ≤ high` does not hold.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> from segjax.typing import Instances
      >>> object = Instances(jnp.array([[0.0, 0.0, 4.0, 4.0]]), jnp.array([7]), jnp.array([True]))
      >>> proposals = jnp.array([[0, 0, 4, 3], [0, 0, 4, 2], [3, 3, 5, 5]], jnp.float32)
      >>> matching.match_proposals(proposals, object, high=0.7, low=0.3)
      Array([ 0, -2, -1], dtype=int32)

    References:
      Ren et al., "Faster R-CNN", 2015, section 3.1.2; Girshick et al., "Detectron", 2018
      (crowds).
    """
    if not 0 <= low <= high:
        raise ValueError(f"low, high: expected 0 <= low <= high, got {low}, {high}")
    check_box_pairs(("targets.boxes", "proposals"), targets.boxes, proposals)
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
        # If no proposal overlaps an object, torchvision matches all of them: they tie at IoU 0.
        best_of_object = jnp.max(iou, axis=-1, keepdims=True, initial=0)
        is_best = jnp.any((iou == best_of_object) & (iou > 0), axis=-2)
        matches = jnp.where(is_best, object_of, matches)
    if targets.crowd is not None:
        shares = _shares_inside(overlap, proposals, targets.boxes)
        in_crowd = (targets.valid & is_crowd)[..., :, None] & (shares > crowd_threshold)
        ignored = (matches == BACKGROUND) & jnp.any(in_crowd, axis=-2)
        matches = jnp.where(ignored, NEITHER, matches)
    return jnp.where(where, matches, NEITHER)


def _shares_inside(iou: Array, proposals: Array, boxes: Array) -> jax.Array:
    """`|P ∩ B| / |P|`, `[*b, n, p]`, from `IoU = |P ∩ B| / (|P| + |B| − |P ∩ B|)`."""
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
    """Sample proposals at random, with a limited fraction of positive ones.

    At most `⌊count · positive_fraction⌋` of the sample are positive (matched with an object), and
    the rest is background. If there are fewer of either, all of them are taken. Samples are
    uniformly distributed.

    Args:
      key: Random keys `[*b]`, one for each image.
      matches: `[*b, p]`, from `match_proposals`.
      count: Size of the sample, static: 256 for anchors, 512 for proposals.
      positive_fraction: Greatest fraction of positive ones, in 0..1: ½ for anchors, ¼ for
        proposals.

    Returns:
      indices: int32 `[*b, count]` in 0..p−1; valid ones are different. Positive ones come first,
      among the first `⌊count · positive_fraction⌋`.
      valid: `[*b, count]`, False where there are not enough proposals; their indices are arbitrary.

    Raises:
      ValueError: If the shapes do not fit together, there are no proposals, or an option is out of
        its range.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matches = jnp.array([-1, -2, 3, 0, 0, -1])
      >>> indices, valid = matching.sample_proposals(
      ...     jax.random.key(0), matches, count=4, positive_fraction=0.25
      ... )
      >>> matches[indices][1:3], valid.astype(int)
      (Array([-1, -1], dtype=int32), Array([1, 1, 1, 0], dtype=int32))

    References:
      Ren et al., "Faster R-CNN", 2015, section 3.1.3.
    """
    if not matches.ndim or not matches.shape[-1]:
        raise ValueError(f"matches: expected shape [*b, p] with proposals, got {matches.shape}")
    *batch, proposals = matches.shape
    if key.shape != tuple(batch):
        raise ValueError(f"key: expected one for each image, shape {tuple(batch)}, got {key.shape}")
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    if not 0 <= positive_fraction <= 1:
        raise ValueError(f"positive_fraction: expected a number in 0..1, got {positive_fraction}")
    draw = jax.vmap(lambda key: jax.random.uniform(key, (proposals,)))
    order = draw(key.reshape(-1)).reshape(matches.shape)

    def first(kind, most):
        """The first proposals of a kind in random order, and their number."""
        most = min(most, proposals)
        indices = jax.lax.top_k(jnp.where(kind, order, -1), most)[1]
        number = jnp.minimum(jnp.sum(kind, axis=-1, keepdims=True), most)
        return indices, number

    positives, taken = first(matches >= 0, int(count * positive_fraction))
    negatives, others = first(matches == BACKGROUND, count)
    # The i-th positive one comes at place i; then the negative ones follow.
    place = jnp.arange(count)
    candidates = jnp.concatenate([positives, negatives], axis=-1)
    place_of = jnp.where(place < taken, place, place - taken + positives.shape[-1])
    indices = jnp.take_along_axis(candidates, place_of, axis=-1, mode="clip")
    return indices.astype(jnp.int32), place < taken + others
