"""Average precision of boxes or masks, as in Pascal VOC."""

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
from segjax.metrics.overlaps import box_overlaps, check_detections, mask_overlaps
from segjax.metrics.sums import Detections
from segjax.numerics import broadcast_where
from segjax.typing import Array, Instances


@dataclasses.dataclass(frozen=True)
class VocScores:
    """Average precision at one IoU threshold; −1 without any object.

    Attributes:
      ap: Mean over the classes with objects.
      class_ap: float64 `[c]`, average precision of each class, in 0..1.
    """

    ap: float
    class_ap: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VocAveragePrecision(Detections):
    """Matched detections of all images, and the number of objects, for VOC's average precision.

    Attributes:
      scores: `[n]`; 0 for padding.
      classes: int32 `[n]`.
      outcomes: int8 `[n]`: 1 true positive, −1 false positive, 0 ignored.
      objects: int32 `[c]`, number of objects that are not difficult.

    Example:
      >>> from segjax import metrics
      >>> metrics.VocAveragePrecision.empty(2).compute().ap
      -1.0
    """

    scores: Float[Array, "*b n"]
    classes: Int[Array, "*b n"]
    outcomes: Int[Array, "*b n"]
    objects: Int[Array, "*b c"]

    @classmethod
    def empty(cls, num_classes: int) -> "VocAveragePrecision":
        """The metric of no images."""
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
        """Add a batch; the arguments are those of `voc_average_precision`."""
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
          method: "area" under the curve of the best precision at each recall or above, as in VOC
            since 2010; or "11-point", the mean of that curve at recalls 0, 0.1 … 1, as in VOC 2007.
        """
        if method not in ("area", "11-point"):
            raise ValueError(f'method: expected "area" or "11-point", got {method!r}')
        state = jax.device_get(self)
        class_ap = np.full(len(state.objects), -1.0)
        for c in np.flatnonzero(state.objects):
            members = np.flatnonzero((state.classes == c) & (state.outcomes != 0))
            order = members[np.argsort(-state.scores[members], kind="stable")]
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
    """Match the detections of a batch for Pascal VOC's average precision; `compute` gives AP.

    In the order of their scores, detections are assigned to the object of their class with the
    highest IoU. A detection is a false positive if the IoU is below the threshold, or if the object
    was matched before (COCO would try the next object). Difficult objects and all detections
    assigned to them are ignored.

    Args:
      predictions: Record with boxes `[*b, n, 4]` (xyxy in pixels), `scores` `[*b, n]`, and masks
        `[*b, n, h, w]` if `kind` is "mask".
      targets: Record with boxes `[*b, m, 4]`, and masks `[*b, m, h, w]`. The pixels in VOC's files
        count from 1 and include the last: their x, y, x', y' become x − 1, y − 1, x', y' here.
      num_classes: c, static.
      iou_threshold: Least IoU of a match, in 0..1.
      difficult: `[*b, m]`, True for difficult objects; None for none.
      kind: What is compared, "box" or "mask".

    Returns:
      The outcome of every detection. Objects and detections are ignored if they are not valid or of
      a class outside 0..c−1.

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
      >>> predictions = dataclasses.replace(targets, boxes=0.8 * box, scores=jnp.array([0.8]))
      >>> metrics.voc_average_precision(predictions, targets, num_classes=1).compute().ap
      1.0

    References:
      Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010, section
      4.2; difficult objects as in the authors' development kit.
    """
    check_detections(predictions, targets, num_classes=num_classes, kind=kind)

    *batch, _ = predictions.classes.shape
    images = math.prod(batch)
    difficult = jnp.zeros_like(targets.valid) if difficult is None else difficult
    difficult = broadcast_where(difficult, targets.valid.shape, name="difficult")
    sets = []
    for name, record in (("predictions", predictions), ("targets", targets)):
        classes, valid = valid_labels(
            record.classes, num_classes, where=record.valid, name=f"{name}.classes"
        )
        sets.append((record.masks if kind == "mask" else record.boxes, classes, valid))
    arguments = jax.tree.map(
        lambda x: x.reshape(images, *x.shape[len(batch) :]),
        (*sets, predictions.scores, difficult),
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
    """Scores, classes and outcomes of the detections of images, and objects of each class.

    Arrays are `[i, …]`; the detections of an image are in descending order of scores.
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
        # One column more than there are objects, so that there is at least one.
        overlaps = jnp.pad(overlaps, ((0, 0), (0, 1)), constant_values=-1)
        best = jnp.argmax(overlaps, axis=-1)  # ties go to the first
        reached = overlaps.max(-1) >= iou_threshold
        taken = (best[:, None] == best) & reached & jnp.tri(len(best), k=-1, dtype=bool)
        outcomes = jnp.where(reached & ~taken.any(-1), 1, -1)
        ignored = reached & jnp.append(difficult, False)[best]
        outcomes = jnp.where(detected & ~ignored, outcomes, 0).astype(jnp.int8)
        counts = exists & ~difficult
        objects = jnp.zeros(num_classes, jnp.int32).at[classes].add(counts)
        return *(jnp.where(detected, x, 0) for x in (scores, found_classes)), outcomes, objects

    # One image at a time, so that the memory of masks is used again.
    return jax.lax.map(match, (predictions, targets, scores, difficult))
