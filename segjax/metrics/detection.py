"""COCO's average precision and recall of boxes or masks."""

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
from segjax.metrics.overlaps import box_overlaps, mask_overlaps
from segjax.metrics.sums import Detections
from segjax.typing import Array, Instances

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# Of objects, in pixels, both ends included: all, small, medium, large.
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
# An image's detections of one class that count, the best first.
MAX_DETECTIONS = (1, 10, 100)
_RECALLS = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True)
class DetectionScores:
    """COCO's twelve figures, each in 0..1, and −1 where there is no object to find.

    Attributes:
      ap: average precision: the mean over classes with objects, IoU thresholds and 101 recalls.
      ap50: that at IoU 0.5.
      ap75: that at IoU 0.75.
      ap_small: `ap` of objects of at most 32² pixels.
      ap_medium: of those from 32² to 96² pixels.
      ap_large: of those of at least 96² pixels.
      ar_1: average recall with the best detection of each image and class.
      ar_10: with the ten best.
      ar_100: with the hundred best.
      ar_small: `ar_100` by area as above; likewise `ar_medium` and `ar_large`.
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
    """What became of every detection of every image, and how many objects there were to find.

    Attributes:
      scores: `[n]`; of an image the best comes first. Padding has 0, and outcome 0.
      classes: int32 `[n]`.
      ranks: int32 `[n]`, the place among the image's detections of the class, from 0.
      outcomes: int8 `[n, areas, thresholds]`: 1 is a hit, −1 a miss, 0 does not count.
      objects: int32 `[c, areas]`, how many count.
      kind: what is compared, "box" or "mask".

    Example:
      >>> AveragePrecision.empty(2, kind="box").compute().ap
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
        """That of no image."""
        none, areas = jnp.zeros(0, jnp.int32), len(AREA_RANGES)
        outcomes = jnp.zeros((0, areas, len(IOU_THRESHOLDS)), jnp.int8)
        objects = jnp.zeros((num_classes, areas), jnp.int32)
        return cls(jnp.zeros(0), none, none, outcomes, objects, kind)

    def update(self, predictions: Instances, targets: Instances) -> "AveragePrecision":
        """With another batch; its arguments are those of `average_precision`."""
        options: dict = {"num_classes": self.objects.shape[-2], "kind": self.kind}
        return self.merge(average_precision(predictions, targets, **options))

    def compute(self) -> DetectionScores:
        """COCO's figures, in float64 on the host, as in pycocotools."""
        state = jax.device_get(self)
        present = state.objects > 0
        order = np.lexsort((-state.scores, state.classes))  # stable
        classes, ranks, outcomes = (x[order] for x in (state.classes, state.ranks, state.outcomes))
        precision = np.zeros((*present.shape, len(IOU_THRESHOLDS)))
        recall = np.zeros((len(MAX_DETECTIONS), *precision.shape))
        for c, area in np.argwhere(present):
            of_class = slice(*np.searchsorted(classes, [c, c + 1]))
            outcome = outcomes[of_class, area]
            precision[c, area] = _interpolated_precision(outcome, int(state.objects[c, area]))
            for i, most in enumerate(MAX_DETECTIONS):
                hits = np.sum(outcome[ranks[of_class] < most] == 1, axis=0)
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
    """By threshold, the mean over 101 recalls of the best precision at that recall or above.

    Args:
      outcome: `[n, thresholds]`, the best score first.
      objects: how many there are to find.
    """
    hits, misses = (np.cumsum(outcome == kind, axis=0) for kind in (1, -1))
    precision = hits / np.maximum(hits + misses, 1)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    best = np.concatenate([best, np.zeros((1, best.shape[1]))])  # recalls out of reach
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
    """Matches a batch's detections with its objects: `compute` gives COCO's AP and AR.

    In the order of their scores, detections take the object of their class with the highest IoU
    among those that are free and reach the threshold: once for each of ten thresholds and four
    ranges of area. Crowds and objects outside the range do not count, nor do detections that only
    such an object takes, nor free ones outside the range. The IoU with a crowd is the share of the
    detection inside it, and it takes any number of them.

    Args:
      predictions: record with boxes `[*b, n, 4]`, `scores`, and `masks` `[*b, n, h, w]` where
        `kind` is "mask".
      targets: record with boxes `[*b, m, 4]`, and masks `[*b, m, h, w]`; without `areas`, the
        areas are those of the boxes or masks.
      num_classes: c, static.
      kind: "box" or "mask": what is compared.

    Returns:
      The outcome of every detection: of the best 100 of each image and class, those count. Objects
      and detections do not that are not valid or of a class not in 0..c−1.

    Raises:
      ValueError: if scores or masks are missing, the shapes do not fit together, or an option is
        not as above.

    Example:
      >>> box, one = jnp.array([[0.0, 0.0, 10.0, 10.0]]), jnp.zeros(1, int)
      >>> targets = Instances(box, classes=one, valid=jnp.array([True]))
      >>> predictions = dataclasses.replace(targets, boxes=0.9 * box, scores=jnp.array([0.8]))
      >>> scores = average_precision(predictions, targets, num_classes=1).compute()
      >>> scores.ap50, scores.ap_small, scores.ap_large
      (1.0, 0.7, -1.0)

    References:
      Lin et al., "Microsoft COCO: common objects in context", 2014; the rules are those of
      the authors' pycocotools.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    predictions, targets = (
        dataclasses.replace(record, classes=as_int32(record.classes, name="classes"))
        for record in (predictions, targets)
    )
    if kind not in ("box", "mask"):
        raise ValueError(f'kind: expected "box" or "mask", got {kind!r}')
    if predictions.scores is None:
        raise ValueError("predictions has no scores")
    if predictions.classes.shape[:-1] != targets.classes.shape[:-1]:
        raise ValueError(
            "predictions.classes: expected the batch axes of targets.classes, "
            f"{targets.classes.shape[:-1]}, got {predictions.classes.shape[:-1]}"
        )
    if kind == "mask":
        if predictions.masks is None or targets.masks is None:
            raise ValueError('predictions or targets has no masks; kind is "mask"')
        if predictions.masks.shape[-2:] != targets.masks.shape[-2:]:
            raise ValueError(
                f"predictions.masks: expected shape the height and , got {predictions.masks.shape}"
                f"width of targets.masks, {targets.masks.shape}"
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


# Compiled once: a loop that is called eagerly is compiled anew at every call.
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
        # One image at a time: the memory for the masks' words is used again.
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
    """Scores, classes, ranks and outcomes `[n, …]` of one image's detections; the objects."""
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
    """What each detection, the best first, takes: 1 an object that counts, 0 another, −1 none.

    Args:
      overlaps: −1 where a pair cannot be.
      counts: False for objects that are taken only where no other can be.
      crowd: objects that are never taken up.
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
        # Of equals the last, as in pycocotools.
        last = jnp.max(jnp.where(best, index, -1), -1, keepdims=True, initial=-1)
        outcome = jnp.where(hit, 1, jnp.where(last >= 0, 0, -1))
        return free & (crowd | (index != last)), outcome[..., 0]

    shape = len(AREA_RANGES), len(IOU_THRESHOLDS), len(index)
    free = jnp.ones_like(overlaps, bool, shape=shape)
    return jax.lax.scan(take, free, overlaps)[1]


def _in_range(areas: Float[Array, "n"]) -> Bool[jax.Array, "areas n"]:
    low, high = jnp.asarray(AREA_RANGES, areas.dtype).T[..., None]
    return (low <= areas) & (areas <= high)
