"""Average precision and recall of boxes or masks, as in COCO."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from segjax.labels import as_int32
from segjax.mapping import map_shards
from segjax.metrics.overlaps import box_overlaps, check_detections, mask_overlaps
from segjax.metrics.sums import Detections
from segjax.typing import Array, Instances

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# Ranges of object areas in pixels, both ends included: all, small, medium, large.
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
# Numbers of detections per image and class, the best first, for average recall.
MAX_DETECTIONS = (1, 10, 100)
_RECALLS = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True)
class DetectionScores:
    """The twelve COCO metrics, each in 0..1, or −1 without any object.

    Attributes:
      ap: Average precision, mean over classes with objects, IoU thresholds and 101 recalls.
      ap50: Average precision at IoU 0.5.
      ap75: Average precision at IoU 0.75.
      ap_small: `ap` for objects of at most 32² pixels.
      ap_medium: `ap` for objects of 32² to 96² pixels.
      ap_large: `ap` for objects of at least 96² pixels.
      ar_1: Average recall with the best detection per image and class.
      ar_10: Average recall with the 10 best detections.
      ar_100: Average recall with the 100 best detections.
      ar_small: `ar_100` for objects of at most 32² pixels.
      ar_medium: `ar_100` for objects of 32² to 96² pixels.
      ar_large: `ar_100` for objects of at least 96² pixels.
      class_ap: float64 `[c]`, `ap` of each class.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    class_ap: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AveragePrecision(Detections):
    """Matched detections of all images, and the number of objects, for COCO's average precision.

    Attributes:
      scores: `[n]`, in descending order for each image; 0 for padding.
      classes: int32 `[n]`.
      ranks: int32 `[n]`, rank by score among the detections of the same image and class, from 0.
      outcomes: int8 `[n, areas, thresholds]`: 1 true positive, −1 false positive, 0 ignored.
      objects: int32 `[c, areas]`, number of objects that count.
      kind: "box" or "mask".

    Example:
      >>> from segjax import metrics
      >>> metrics.AveragePrecision.empty(2, kind="box").compute().ap
      -1.0
    """

    scores: Float[Array, "*b n"]
    classes: Int[Array, "*b n"]
    ranks: Int[Array, "*b n"]
    outcomes: Int[Array, "*b n areas thresholds"]
    objects: Int[Array, "*b c areas"]
    kind: Literal["box", "mask"] = dataclasses.field(metadata={"static": True})

    @classmethod
    def empty(cls, num_classes: int, *, kind: Literal["box", "mask"]) -> "AveragePrecision":
        """The metric of no images."""
        none, areas = jnp.zeros(0, jnp.int32), len(AREA_RANGES)
        outcomes = jnp.zeros((0, areas, len(IOU_THRESHOLDS)), jnp.int8)
        objects = jnp.zeros((num_classes, areas), jnp.int32)
        return cls(jnp.zeros(0), none, none, outcomes, objects, kind)

    def update(self, predictions: Instances, targets: Instances) -> "AveragePrecision":
        """Add a batch; the arguments are those of `average_precision`."""
        options: dict = {"num_classes": self.objects.shape[-2], "kind": self.kind}
        return self.merge(average_precision(predictions, targets, **options))

    def compute(self) -> DetectionScores:
        """The COCO metrics, in float64 on the host, as in pycocotools."""
        state = jax.device_get(self)
        present = state.objects > 0
        order = np.lexsort((-state.scores, state.classes))  # stable
        classes, ranks, outcomes = (x[order] for x in (state.classes, state.ranks, state.outcomes))
        precision = np.zeros((*present.shape, len(IOU_THRESHOLDS)))
        recall = np.zeros((len(MAX_DETECTIONS), *precision.shape))
        for c, area in np.argwhere(present):
            members = slice(*np.searchsorted(classes, [c, c + 1]))
            outcome = outcomes[members, area]
            precision[c, area] = _interpolated_precision(outcome, int(state.objects[c, area]))
            for i, most in enumerate(MAX_DETECTIONS):
                hits = np.sum(outcome[ranks[members] < most] == 1, axis=0)
                recall[i, c, area] = hits / state.objects[c, area]

        def mean(values, area=0):
            values = values[present[:, area], area]
            return float(values.mean()) if values.size else -1.0

        return DetectionScores(
            ap=mean(precision),
            ap50=mean(precision[..., 0]),
            ap75=mean(precision[..., 5]),
            ap_small=mean(precision, 1),
            ap_medium=mean(precision, 2),
            ap_large=mean(precision, 3),
            ar_1=mean(recall[0]),
            ar_10=mean(recall[1]),
            ar_100=mean(recall[2]),
            ar_small=mean(recall[2], 1),
            ar_medium=mean(recall[2], 2),
            ar_large=mean(recall[2], 3),
            class_ap=np.where(present[:, 0], precision[:, 0].mean(-1), -1.0),
        )


def _interpolated_precision(outcome: np.ndarray, objects: int) -> np.ndarray:
    """For each threshold, the mean over 101 recalls of the best precision at that recall or above.

    Args:
      outcome: `[n, thresholds]`, in descending order of scores.
      objects: Number of objects.
    """
    hits, misses = (np.cumsum(outcome == kind, axis=0) for kind in (1, -1))
    precision = hits / np.maximum(hits + misses, 1)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    best = np.concatenate([best, np.zeros((1, best.shape[1]))])  # recalls that are not reached
    return np.array(
        [
            best[np.searchsorted(hits[:, t] / objects, _RECALLS), t].mean()
            for t in range(outcome.shape[1])
        ]
    )


def average_precision(
    predictions: Instances,
    targets: Instances,
    *,
    num_classes: int,
    kind: Literal["box", "mask"] = "box",
) -> AveragePrecision:
    """Match the detections of a batch for COCO's average precision; `compute` gives AP and AR.

    In the order of their scores, detections are matched to the unmatched object of their class with
    the highest IoU above the threshold, for each of ten thresholds and four ranges of area. Crowds
    and objects outside the range are ignored, and so are detections that match only such objects or
    that are unmatched and outside the range. The IoU with a crowd is the fraction of the detection
    inside it, and a crowd can have many matches.

    Args:
      predictions: Record with boxes `[*b, n, 4]` (xyxy in pixels), `scores` `[*b, n]`, and masks
        `[*b, n, h, w]` if `kind` is "mask".
      targets: Record with boxes `[*b, m, 4]`, and masks `[*b, m, h, w]`; without `areas`, those of
        the boxes or masks are used.
      num_classes: c, static.
      kind: What is compared, "box" or "mask".

    Returns:
      The outcome of the best 100 detections of each image and class. Objects and detections are
      ignored if they are not valid or of a class outside 0..c−1.

    Raises:
      ValueError: If scores or masks are missing, the shapes do not fit together, or an option is
        out of its range.

    Example:
      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> from segjax.typing import Instances
      >>> box, one = jnp.array([[0.0, 0.0, 10.0, 10.0]]), jnp.zeros(1, int)
      >>> targets = Instances(box, classes=one, valid=jnp.array([True]))
      >>> predictions = dataclasses.replace(targets, boxes=0.9 * box, scores=jnp.array([0.8]))
      >>> scores = metrics.average_precision(predictions, targets, num_classes=1).compute()
      >>> scores.ap50, scores.ap_small, scores.ap_large
      (1.0, 0.7, -1.0)

    References:
      Lin et al., "Microsoft COCO: common objects in context", 2014; the rules are those of
      the authors' pycocotools.
    """
    check_detections(predictions, targets, num_classes=num_classes, kind=kind)
    predictions, targets = (
        dataclasses.replace(record, classes=as_int32(record.classes, name=f"{name}.classes"))
        for name, record in (("predictions", predictions), ("targets", targets))
    )

    *batch, _ = predictions.classes.shape
    images = math.prod(batch)
    predictions, targets = jax.tree.map(
        lambda x: x.reshape(images, *x.shape[len(batch) :]), (predictions, targets)
    )
    match = functools.partial(_match_images, num_classes=num_classes, kind=kind)
    *detections, objects = map_shards(match, predictions, targets)
    scores, classes, ranks, outcomes = (x.reshape(-1, *x.shape[2:]) for x in detections)
    return AveragePrecision(scores, classes, ranks, outcomes, objects.sum(0), kind)


# Jitted, as a loop that is called eagerly is compiled at every call.
@functools.partial(jax.jit, static_argnames=("num_classes", "kind"))
def _match_images(
    predictions: Instances, targets: Instances, *, num_classes: int, kind: str
) -> tuple[jax.Array, ...]:
    """`_match_image` of each image of a batch `[i, …]`."""
    crowd = jnp.zeros_like(targets.valid) if targets.crowd is None else targets.crowd
    targets = dataclasses.replace(targets, crowd=crowd)
    if kind == "box":
        overlaps = jax.vmap(box_overlaps)(predictions.boxes, targets.boxes, crowd)
    else:
        # One image at a time, so that the memory of packed masks is used again.
        masks = predictions.masks, targets.masks, crowd
        overlaps = jax.lax.map(lambda image: mask_overlaps(*image), masks)
    match = functools.partial(_match_image, num_classes=num_classes)
    return jax.vmap(match)(predictions, targets, *overlaps)


def _match_image(
    predictions: Any,
    targets: Any,
    overlaps: Float[Array, "n m"],
    area: Float[Array, "n"],
    labelled_area: Float[Array, "m"],
    *,
    num_classes: int,
) -> tuple[jax.Array, ...]:
    """Scores, classes, ranks and outcomes `[n, …]` of the detections of an image; its objects."""
    detected, labelled = (
        record.valid & (record.classes >= 0) & (record.classes < num_classes)
        for record in (predictions, targets)
    )
    comparable = predictions.classes[:, None] == targets.classes
    comparable &= detected[:, None] & labelled
    overlaps = jnp.where(comparable, overlaps, -1)
    counts = labelled & ~targets.crowd
    counts &= _in_range(labelled_area if targets.areas is None else targets.areas)

    order = jnp.argsort(jnp.where(detected, -predictions.scores, jnp.inf))
    detected, scores, classes, overlaps, area = (
        x[order] for x in (detected, predictions.scores, predictions.classes, overlaps, area)
    )
    same_class = classes[:, None] == classes
    ranks = jnp.sum(same_class & jnp.tri(len(order), k=-1, dtype=bool), axis=-1)
    outcomes = _match_greedily(overlaps, counts, targets.crowd)
    outcomes = jnp.where((outcomes == -1) & ~_in_range(area).T[..., None], 0, outcomes)
    listed = detected & (ranks < MAX_DETECTIONS[-1])
    outcomes = jnp.where(listed[:, None, None], outcomes, 0).astype(jnp.int8)
    scores, classes, ranks = (jnp.where(detected, x, 0) for x in (scores, classes, ranks))

    rows = jnp.where(labelled, targets.classes, num_classes)
    objects = jnp.zeros((num_classes, len(AREA_RANGES)), jnp.int32)
    objects = objects.at[rows].add(counts.T.astype(jnp.int32), mode="drop")
    return scores, classes, ranks, outcomes, objects


def _match_greedily(
    overlaps: Float[Array, "n m"], counts: Bool[Array, "areas m"], crowd: Bool[Array, "m"]
) -> Int[jax.Array, "n areas thresholds"]:
    """The outcome of each detection: 1 matches an object that counts, 0 one that does not, −1 none.

    Args:
      overlaps: IoUs in descending order of scores; −1 for pairs that cannot match.
      counts: False for objects that are matched only if no other can be.
      crowd: True for objects that can have many matches.
    """
    index = jnp.arange(overlaps.shape[-1])
    thresholds = jnp.asarray(IOU_THRESHOLDS, overlaps.dtype)[:, None]

    def take(free, overlap):
        reachable = free & (overlap >= thresholds)
        preferred = reachable & counts[:, None]
        hit = preferred.any(-1, keepdims=True)
        candidates = jnp.where(hit, preferred, reachable)
        best = jnp.max(jnp.where(candidates, overlap, -1), -1, keepdims=True, initial=-1)
        best = candidates & (overlap == best)
        # Ties go to the last one, as in pycocotools.
        last = jnp.max(jnp.where(best, index, -1), -1, keepdims=True, initial=-1)
        outcome = jnp.where(hit, 1, jnp.where(last >= 0, 0, -1))
        return free & (crowd | (index != last)), outcome[..., 0]

    shape = len(AREA_RANGES), len(IOU_THRESHOLDS), len(index)
    free = jnp.ones_like(overlaps, bool, shape=shape)
    return jax.lax.scan(take, free, overlaps)[1]


def _in_range(areas: Float[Array, "n"]) -> Bool[jax.Array, "areas n"]:
    low, high = jnp.asarray(AREA_RANGES, areas.dtype).T[..., None]
    return (low <= areas) & (areas <= high)
