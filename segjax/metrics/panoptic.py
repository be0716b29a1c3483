"""Panoptic quality (PQ), segmentation quality (SQ) and recognition quality (RQ)."""

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
      pq: Mean of `class_pq` over the classes labelled or predicted anywhere; 1 without any.
      sq: Mean of `class_sq` over the same classes.
      rq: Mean of `class_rq` over the same classes.
      class_pq: `[c]`, in 0..1; all three are 1 for a class neither labelled nor predicted.
      class_sq: `[c]`, mean IoU of the matched segments; 0 without any.
      class_rq: `[c]`, F1 score of the segments.
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
    """Sums for panoptic quality: matched, false and missed segments of each class.

    Attributes:
      iou: `[c]`, sum of the IoUs of matched segments.
      true_positives: `[c]`, matched segments.
      false_positives: `[c]`, predicted segments without a match.
      false_negatives: `[c]`, labelled segments without a match.

    Example:
      >>> from segjax import metrics
      >>> metric = metrics.PanopticQuality.empty(2)
      >>> metric.false_negatives
      Array([0, 0], dtype=int32)
    """

    iou: Float[Array, "*b c"]
    true_positives: Int[Array, "*b c"]
    false_positives: Int[Array, "*b c"]
    false_negatives: Int[Array, "*b c"]

    @classmethod
    def empty(cls, num_classes: int) -> "PanopticQuality":
        """The metric of no images."""
        none = jnp.zeros(num_classes, jnp.int32)
        return cls(jnp.zeros(num_classes), none, none, none)

    def update(self, predictions: Panoptic, targets: Panoptic) -> "PanopticQuality":
        """Add a batch; the arguments are those of `panoptic_quality`."""
        num_classes = self.iou.shape[-1]
        return self.merge(panoptic_quality(predictions, targets, num_classes=num_classes))

    def compute(self, *, where: Bool[Array, "c"] | None = None) -> PanopticScores:
        """`PQ = Σ IoU / (TP + ½FP + ½FN)`, `SQ = Σ IoU / TP`, `RQ = TP / (TP + ½FP + ½FN)`.

        Args:
          where: `[c]`, True for the classes to average over, such as the things; None for all.
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
    """Match the segments of a batch for panoptic quality; `compute` gives PQ, SQ and RQ.

    A predicted and a true segment of the same class match if their IoU, over the pixels that are
    not void in the target, is above ½; so each has at most one match. A predicted segment without a
    match is a false positive, unless more than half of it lies on void or on crowds of its class.
    Crowds are never matched and never missed.

    Args:
      predictions: Record with segments `[*b, h, w]`, indices of a table of n segments.
      targets: Record with segments `[*b, h, w]`, indices of a table of m; `crowd` may be None.
      num_classes: c, static.

    Returns:
      Sums over all images for each class, `[c]`. Segments without pixels are ignored. A pixel is
      void if its segment is outside the table, not valid, or of a class outside 0..c−1.

    Raises:
      ValueError: If the shapes of the segments differ, or `num_classes` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> from segjax.typing import Panoptic
      >>> valid, segments = jnp.ones(2, bool), jnp.array([[0, 0, 0, 0, 1, -1]])
      >>> targets = Panoptic(segments, classes=jnp.array([0, 1]), valid=valid)
      >>> predictions = Panoptic(jnp.array([[0, 0, 0, 1, 1, 1]]), jnp.array([0, 1]), valid)
      >>> scores = metrics.panoptic_quality(predictions, targets, num_classes=2).compute()
      >>> scores.class_pq
      Array([0.75, 0.  ], dtype=float32)

    References:
      Kirillov et al., "Panoptic segmentation", 2019, section 4; void and crowds as in the
      authors' panopticapi.
    """
    if predictions.segments.shape != targets.segments.shape:
        raise ValueError(
            f"predictions.segments: expected the shape of targets.segments, "
            f"{targets.segments.shape}, got {predictions.segments.shape}"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    (predicted_classes, predicted), (labelled_classes, labelled) = (
        valid_labels(
            record.classes,
            num_classes,
            where=broadcast_where(record.valid, record.classes.shape, name=f"{name}.valid"),
            name=f"{name}.classes",
        )
        for name, record in (("predictions", predictions), ("targets", targets))
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

    # panopticapi considers one crowd of each class only; no image of COCO has a second one.
    on_crowd = jnp.sum(jnp.where(crowd, intersection, 0), axis=-1)
    ignored = 2 * (on_void + on_crowd) > predicted_area
    found, hit = match.any(-1), match.any(-2)

    spurious, missed = predicted & ~found & ~ignored, labelled & ~hit & ~crowd[..., 0, :]

    def by_class(values, classes):
        return jnp.zeros(num_classes, values.dtype).at[classes].add(values)

    return PanopticQuality(
        iou=by_class(iou, predicted_classes),
        true_positives=by_class(found.astype(jnp.int32), predicted_classes),
        false_positives=by_class(spurious.astype(jnp.int32), predicted_classes),
        false_negatives=by_class(missed.astype(jnp.int32), labelled_classes),
    )


def _overlaps(predictions: Panoptic, targets: Panoptic) -> Int[jax.Array, "*b rows columns"]:
    """Number of pixels of each pair of segments; the last row and column are void."""
    *batch, n = predictions.classes.shape
    m = targets.classes.shape[-1]
    images = math.prod(batch)

    def row_of(name, record, size):
        segments, known = valid_labels(record.segments, size, name=f"{name}.segments")
        return jnp.where(known, segments, size).reshape(images, -1)

    rows = row_of("predictions", predictions, n)
    columns = row_of("targets", targets, m)
    rows += (n + 1) * jnp.arange(images)[:, None]  # the tables of the images are stacked
    counts = count_pairs(rows, columns, (images * (n + 1), m + 1))
    return counts.reshape(*batch, n + 1, m + 1)
