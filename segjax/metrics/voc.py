"""Pascal VOC's average precision of boxes or masks."""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from segjax.labels import valid_labels
from segjax.mapping import map_shards
from segjax.metrics.overlaps import box_overlaps, mask_overlaps
from segjax.metrics.sums import Detections
from segjax.numerics import broadcast_where
from segjax.typing import Array, Instances


@dataclasses.dataclass(frozen=True)
class VocScores:
    """Average precision at one threshold of IoU; −1 where there is no object.

    Attributes:
      ap: the mean over the classes with objects.
      class_ap: float64 `[c]`, in 0..1.
    """

    ap: float
    class_ap: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VocAveragePrecision(Detections):
    """What became of every detection of every image, and how many objects there were to find.

    Attributes:
      scores: `[n]`. Padding has 0, and outcome 0.
      classes: int32 `[n]`.
      outcomes: int8 `[n]`: 1 is a hit, −1 a miss, 0 does not count.
      objects: int32 `[c]`, how many are not difficult.

    Example:
      >>> VocAveragePrecision.empty(2).compute().ap
      -1.0
    """

    scores: Float[Array, "*b n"]
    classes: Int[Array, "*b n"]
    outcomes: Int[Array, "*b n"]
    objects: Int[Array, "*b c"]

    @classmethod
    def empty(cls, num_classes: int) -> "VocAveragePrecision":
        """That of no image."""
        none = jnp.zeros(0, jnp.int32)
        return cls(jnp.zeros(0), none, none.astype(jnp.int8), jnp.zeros(num_classes, jnp.int32))

    def update(
        self,
        predictions: Instances,
        targets: Instances,
        *,
        iou_threshold: float = 0.5,
        difficult: Bool[Array, "*b m"] | None = None,
        kind: Literal["box", "mask"] = "box",
    ) -> "VocAveragePrecision":
        """With another batch; its arguments are those of `voc_average_precision`."""
        more = voc_average_precision(
            predictions,
            targets,
            num_classes=self.objects.shape[-1],
            iou_threshold=iou_threshold,
            difficult=difficult,
            kind=kind,
        )
        return self.merge(more)

    def compute(self, *, method: Literal["area", "11-point"] = "area") -> VocScores:
        """The average precision of each class, in float64 on the host.

        Args:
          method: "area" under the curve of the best precision at each recall or above, VOC's rule
            from 2010 on; "11-point" for its mean at the recalls 0, 0.1 … 1, that of 2007.
        """
        if method not in ("area", "11-point"):
            raise ValueError(f'method: expected "area" or "11-point", got {method!r}')
        state = jax.device_get(self)
        class_ap = np.full(len(state.objects), -1.0)
        for c in np.flatnonzero(state.objects):
            of_class = np.flatnonzero((state.classes == c) & (state.outcomes != 0))
            order = of_class[np.argsort(-state.scores[of_class], kind="stable")]
            hits = np.cumsum(state.outcomes[order] == 1)
            precision = np.append(hits / np.arange(1, len(hits) + 1), 0)
            best = np.maximum.accumulate(precision[::-1])[::-1]
            recall = hits / state.objects[c]
            if method == "area":
                class_ap[c] = np.sum(np.diff(recall, prepend=0) * best[:-1])
            else:
                class_ap[c] = best[np.searchsorted(recall, np.arange(11) / 10)].mean()
        counted = class_ap[class_ap >= 0]
        return VocScores(float(counted.mean()) if counted.size else -1.0, class_ap)


def voc_average_precision(
    predictions: Instances,
    targets: Instances,
    *,
    num_classes: int,
    iou_threshold: float = 0.5,
    difficult: Bool[Array, "*b m"] | None = None,
    kind: Literal["box", "mask"] = "box",
) -> VocAveragePrecision:
    """Matches a batch's detections with its objects: `compute` gives Pascal VOC's AP.

    In the order of their scores, detections take the object of their class with the highest IoU,
    whether it is free or not. A detection below the threshold is a miss, and so is one whose object
    another took before: COCO would give it the next best. Difficult objects do not count, nor do
    the detections that take them, however many.

    Args:
      predictions: record with boxes `[*b, n, 4]`, `scores`, and `masks` `[*b, n, h, w]` where
        `kind` is "mask".
      targets: record with boxes `[*b, m, 4]`, and masks `[*b, m, h, w]`. VOC's files count both
        ends of a box from 1: their (x, y) to (x', y') is here (x − 1, y − 1, x', y').
      num_classes: c, static.
      iou_threshold: what the IoU must reach.
      difficult: `[*b, m]`, True for objects that need not be found; None for none.
      kind: "box" or "mask": what is compared.

    Returns:
      The outcome of every detection. Objects and detections do not count that are not valid or of a
      class not in 0..c−1.

    Raises:
      ValueError: if scores or masks are missing, the shapes do not fit together, or an option is
        not as above.

    Example:
      >>> box, one = jnp.array([[0.0, 0.0, 10.0, 10.0]]), jnp.zeros(1, int)
      >>> targets = Instances(box, classes=one, valid=jnp.array([True]))
      >>> predictions = dataclasses.replace(targets, boxes=0.8 * box, scores=jnp.array([0.8]))
      >>> voc_average_precision(predictions, targets, num_classes=1).compute().ap
      1.0

    References:
      Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010, section
      4.2; difficult objects as in the authors' development kit.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    if kind not in ("box", "mask"):
        raise ValueError(f'kind: expected "box" or "mask", got {kind!r}')
    if predictions.scores is None:
        raise ValueError("predictions.scores: expected [*b, n], got None")
    if predictions.classes.shape[:-1] != targets.classes.shape[:-1]:
        raise ValueError(
            f"predictions.classes: expected the batch axes of targets.classes, "
            f"{targets.classes.shape}, got {predictions.classes.shape}"
        )
    if kind == "mask" and (predictions.masks is None or targets.masks is None):
        raise ValueError('predictions.masks, targets.masks: expected for kind "mask", got None')

    *batch, _ = predictions.classes.shape
    images = math.prod(batch)
    difficult = jnp.zeros_like(targets.valid) if difficult is None else difficult
    sets = []
    for record in (predictions, targets):
        classes, valid = valid_labels(record.classes, num_classes, where=record.valid)
        sets.append((record.masks if kind == "mask" else record.boxes, classes, valid))
    arguments = jax.tree.map(
        lambda x: x.reshape(images, *x.shape[len(batch) :]),
        (*sets, predictions.scores, broadcast_where(difficult, targets.valid.shape)),
    )
    match = functools.partial(
        _match_images, num_classes=num_classes, iou_threshold=iou_threshold, kind=kind
    )
    scores, classes, outcomes, objects = map_shards(match, *arguments)
    return VocAveragePrecision(scores.ravel(), classes.ravel(), outcomes.ravel(), objects.sum(0))


@functools.partial(jax.jit, static_argnames=("num_classes", "kind"))
def _match_images(
    predictions: tuple[jax.Array, ...],
    targets: tuple[jax.Array, ...],
    scores: jax.Array,
    difficult: jax.Array,
    *,
    num_classes: int,
    iou_threshold: float | Array,
    kind: str,
) -> tuple[jax.Array, ...]:
    """Of the images `[i, …]`: scores, classes and outcomes of the detections `[n]`, the best first;
    and how many objects count, `[c]`.
    """
    overlaps_of = box_overlaps if kind == "box" else mask_overlaps

    def match(image):
        (found, found_classes, detected), (labelled, classes, exists), scores, difficult = image
        overlaps = overlaps_of(found, labelled, jnp.zeros_like(exists))[0]
        alike = (found_classes[:, None] == classes) & detected[:, None] & exists
        overlaps = jnp.where(alike, overlaps, -1)
        order = jnp.argsort(jnp.where(detected, -scores, jnp.inf))
        overlaps, detected, scores, found_classes = (
            x[order] for x in (overlaps, detected, scores, found_classes)
        )
        # A column more than there are objects, so that there is one.
        overlaps = jnp.pad(overlaps, ((0, 0), (0, 1)), constant_values=-1)
        best = jnp.argmax(overlaps, axis=-1)  # of equals the first
        reached = overlaps.max(-1) >= iou_threshold
        taken = (best[:, None] == best) & reached & jnp.tri(len(best), k=-1, dtype=bool)
        outcomes = jnp.where(reached & ~taken.any(-1), 1, -1)
        ignored = reached & jnp.append(difficult, False)[best]
        outcomes = jnp.where(detected & ~ignored, outcomes, 0).astype(jnp.int8)
        counts = exists & ~difficult
        objects = jnp.zeros(num_classes, jnp.int32).at[classes].add(counts)
        return *(jnp.where(detected, x, 0) for x in (scores, found_classes)), outcomes, objects

    # One image at a time: the memory for its masks is used again.
    return jax.lax.map(match, (predictions, targets, scores, difficult))
