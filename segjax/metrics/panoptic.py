"""Panoptic quality: how well segments are found, and how well each found one is outlined."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from segjax.labels import valid_labels
from segjax.metrics.counting import count_pairs
from segjax.metrics.sums import Sums
from segjax.numerics import broadcast_where, masked_sum, safe_divide
from segjax.typing import Array, Panoptic


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PanopticScores:
    """Panoptic, segmentation and recognition quality: `PQ = SQ · RQ` for every class.

    Attributes:
      pq: the mean of `class_pq` over the classes seen; likewise `sq` and `rq`.
      sq: 1, as the others are, where no class was seen.
      rq: the mean of `class_rq`.
      class_pq: `[c]`, in 0..1; 1, as the next two, for a class neither labelled nor predicted.
      class_sq: `[c]`, the mean IoU of the matched segments; 0 without any.
      class_rq: `[c]`, the F1 score of the segments.
    """

    pq: Float[Array, "*b"]
    sq: Float[Array, "*b"]
    rq: Float[Array, "*b"]
    class_pq: Float[Array, "*b c"]
    class_sq: Float[Array, "*b c"]
    class_rq: Float[Array, "*b c"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PanopticQuality(Sums):
    """The segments found, invented and missed, by class.

    Attributes:
      iou: `[c]`, the sum of the matched segments' IoUs.
      true_positives: `[c]`, matched segments.
      false_positives: `[c]`, predicted segments without a match.
      false_negatives: `[c]`, labelled segments without a match.

    Example:
      >>> metric = PanopticQuality.empty(2)
      >>> metric.false_negatives
      Array([0, 0], dtype=int32)
    """

    iou: Float[Array, "*b c"]
    true_positives: Int[Array, "*b c"]
    false_positives: Int[Array, "*b c"]
    false_negatives: Int[Array, "*b c"]

    @classmethod
    def empty(cls, num_classes: int) -> "PanopticQuality":
        """That of no example."""
        none = jnp.zeros(num_classes, jnp.int32)
        return cls(jnp.zeros(num_classes), none, none, none)

    def update(self, predictions: Panoptic, targets: Panoptic) -> "PanopticQuality":
        """With another batch; its arguments are those of `panoptic_quality`."""
        num_classes = self.iou.shape[-1]
        return self.merge(panoptic_quality(predictions, targets, num_classes=num_classes))

    def compute(self, *, where: Bool[Array, "c"] | None = None) -> PanopticScores:
        """`PQ = Σ IoU / (TP + ½FP + ½FN)`, `SQ = Σ IoU / TP`, `RQ = TP / (TP + ½FP + ½FN)`.

        Args:
          where: `[c]`, the classes that the means are over, such as the things; None for all.
        """
        found = self.true_positives
        size = found + 0.5 * (self.false_positives + self.false_negatives)
        seen = size > 0
        scores = [
            jnp.where(seen, safe_divide(numerator, denominator), 1)
            for numerator, denominator in ((self.iou, size), (self.iou, found), (found, size))
        ]
        counted = seen & broadcast_where(where, seen.shape)
        means = (
            safe_divide(masked_sum(score, axis=-1, where=counted), counted.sum(-1), default=1.0)
            for score in scores
        )
        return PanopticScores(*means, *scores)


def panoptic_quality(
    predictions: Panoptic, targets: Panoptic, *, num_classes: int
) -> PanopticQuality:
    """Counts the segments found, invented and missed in a batch: `compute` gives PQ, SQ and RQ.

    A predicted and a labelled segment of the same class match where their IoU, taken over the
    pixels that are not void in the target, is above ½: so neither has a second match. A predicted
    segment without a match counts as false unless more than half of it lies on void or on crowds
    of its class; a crowd matches nothing and is not missed.

    Args:
      predictions: record with segments `[*b, h, w]` into a table of n.
      targets: record with segments `[*b, h, w]` into a table of m; `crowd` may be None.
      num_classes: c, static.

    Returns:
      The counts of all images, by class `[c]`. Segments without a pixel are not there, and pixels
      are void whose segment is outside the table, not valid, or of a class not in 0..c−1.

    Raises:
      ValueError: if the segments' shapes differ, or `num_classes` is not positive.

    Example:
      >>> valid, segments = jnp.ones(2, bool), jnp.array([[0, 0, 0, 1, -1]])
      >>> targets = Panoptic(segments, classes=jnp.array([0, 1]), valid=valid)
      >>> predictions = Panoptic(jnp.array([[0, 0, 1, 1, 1]]), jnp.array([0, 1]), valid)
      >>> scores = panoptic_quality(predictions, targets, num_classes=2).compute()
      >>> scores.class_pq
      Array([0.6666667, 0.       ], dtype=float32)

    References:
      Kirillov et al., "Panoptic segmentation", 2019, section 4; void and crowds as in the
      authors' panopticapi.
    """
    if predictions.segments.shape != targets.segments.shape:
        raise ValueError(
            f"predictions.segments: expected shape that of , got {predictions.segments.shape}"
            f"targets.segments, {targets.segments.shape}"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    (predicted_classes, predicted), (labelled_classes, labelled) = (
        valid_labels(record.classes, num_classes, where=record.valid, name="classes")
        for record in (predictions, targets)
    )
    overlaps = _overlaps(predictions, targets)
    on_void = jnp.sum(jnp.where(labelled[..., None, :], 0, overlaps[..., :-1, :-1]), axis=-1)
    on_void += overlaps[..., :-1, -1]
    predicted_area = overlaps.sum(-1)[..., :-1]
    labelled_area = overlaps.sum(-2)[..., :-1]
    predicted &= predicted_area > 0
    labelled &= labelled_area > 0

    same_class = predicted_classes[..., :, None] == labelled_classes[..., None, :]
    same_class &= predicted[..., :, None] & labelled[..., None, :]
    crowd = jnp.zeros_like(labelled) if targets.crowd is None else jnp.asarray(targets.crowd)
    crowd = crowd[..., None, :]
    intersection = jnp.where(same_class, overlaps[..., :-1, :-1], 0)
    union = (predicted_area - on_void)[..., :, None] + labelled_area[..., None, :] - intersection
    match = ~crowd & (2 * intersection > union)
    iou = jnp.sum(jnp.where(match, safe_divide(intersection, union), 0), axis=-1)

    # panopticapi looks at only one crowd of a class; COCO has no second one in any image.
    on_crowd = jnp.sum(jnp.where(crowd, intersection, 0), axis=-1)
    ignored = 2 * (on_void + on_crowd) > predicted_area
    found, hit = match.any(-1), match.any(-2)

    invented, missed = predicted & ~found & ~ignored, labelled & ~hit & ~crowd[..., 0, :]

    def by_class(values, classes):
        return jnp.zeros(num_classes, values.dtype).at[classes].add(values)

    return PanopticQuality(
        iou=by_class(iou, predicted_classes),
        true_positives=by_class(found.astype(jnp.int32), predicted_classes),
        false_positives=by_class(invented.astype(jnp.int32), predicted_classes),
        false_negatives=by_class(missed.astype(jnp.int32), labelled_classes),
    )


def _overlaps(predictions: Panoptic, targets: Panoptic) -> Int[jax.Array, "*b rows columns"]:
    """The pixels of each pair of segments; the last row and column are those of void."""
    *batch, n = predictions.classes.shape
    m = targets.classes.shape[-1]
    images = math.prod(batch)

    def row_of(segments, size):
        segments, known = valid_labels(segments, size, name="segments")
        return jnp.where(known, segments, size).reshape(images, -1)

    rows, columns = row_of(predictions.segments, n), row_of(targets.segments, m)
    rows += (n + 1) * jnp.arange(images)[:, None]  # the images' tables, one below the other
    counts = count_pairs(rows, columns, (images * (n + 1), m + 1))
    return counts.reshape(*batch, n + 1, m + 1)
