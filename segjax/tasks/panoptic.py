"""Panoptic segmentation: every pixel to one segment, of a thing or of stuff."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from segjax import inference, metrics, viz
from segjax.data import Classes, panoptic_to_instances
from segjax.labels import valid_labels
from segjax.mapping import map_shards
from segjax.models.layers import inside
from segjax.tasks.queries import QueryTask
from segjax.typing import Array, Instances, Panoptic, Record


@dataclasses.dataclass(frozen=True)
class PanopticTask(QueryTask):
    """How a panoptic model is fed, trained, judged and asked.

    A source that has but labels is one of stuff: of each class an image holds one segment. So a
    model of queries learns semantic segmentation.

    Attributes:
      score_threshold: what the class probability of a segment must exceed.
      overlap_threshold: the share of its mask that a segment must win.
    """

    score_threshold: float = 0.8
    overlap_threshold: float = 0.8

    @property
    def score(self) -> str:
        """What the best checkpoint has most of."""
        return "pq"

    def targets(self, record: Record) -> Instances:
        """The largest segments, `loss.max_objects` of them at most, of things and of stuff."""
        segments = self._segments(record)
        most = min(self.loss.max_objects, segments.valid.shape[-1])
        return panoptic_to_instances(segments, max_instances=most)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Panoptic:
        """The segments of images.

        Args:
          model: gives a `QueryOutput` with masks.
          variables: of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, of the pictures; None where they fill their canvases.

        Returns:
          Segments `[b, h, w]`.

        Raises:
          ValueError: if the model has no masks.
        """
        outputs = self.outputs(model, variables, images, sizes)
        if outputs.mask_logits is None:
            raise ValueError("this model predicts no masks, which segments are made of")
        shape = (images.shape[-3], images.shape[-2])
        where = None if sizes is None else inside(sizes, shape)
        segment = functools.partial(
            inference.panoptic_segmentation,
            things=jnp.array(self.things or (False,) * self.num_classes),
            shape=shape,
            score_threshold=self.score_threshold,
            overlap_threshold=self.overlap_threshold,
        )
        return map_shards(
            lambda *x: segment(*x[:2], where=x[2]), outputs.class_logits, outputs.mask_logits, where
        )

    def measure(self, predictions: Panoptic, record: Record) -> metrics.PanopticQuality:
        """The segments found, invented and missed in a batch."""
        targets = self._segments(record)
        if record.valid is not None:
            predictions, targets = (
                dataclasses.replace(x, valid=x.valid & record.valid[..., None])
                for x in (predictions, targets)
            )
        return metrics.panoptic_quality(predictions, targets, num_classes=self.num_classes)

    def summary(self, metric: metrics.PanopticQuality, classes: Classes) -> dict[str, float]:
        """The qualities, in 0..1: means, and those of each class by name.

        Args:
          metric: of all examples.
          classes: their names, and which are things.

        Returns:
          `pq`, `sq`, `rq`, with things among the classes `pq_things` and `pq_stuff`, and `pq/NAME`,
          `sq/NAME`, `rq/NAME` of the classes that labels or predictions hold.
        """
        scores = metric.compute()
        figures = {"pq": scores.pq, "sq": scores.sq, "rq": scores.rq}
        if any(self.things):
            things = jnp.array(self.things)
            figures["pq_things"] = metric.compute(where=things).pq
            figures["pq_stuff"] = metric.compute(where=~things).pq
        seen = metric.true_positives + metric.false_positives + metric.false_negatives
        for i in np.flatnonzero(np.asarray(seen)):
            name = classes.names[i]
            figures[f"pq/{name}"] = scores.class_pq[i]
            figures[f"sq/{name}"] = scores.class_sq[i]
            figures[f"rq/{name}"] = scores.class_rq[i]
        return {name: float(value) for name, value in figures.items()}

    def draw(self, record: Record, prediction: Panoptic, classes: Classes) -> viz.Row:
        """The picture, its segments, and the predicted ones."""
        truth = jax.device_get(self._segments(record))
        return viz.compare_segments(record.require("image"), truth, prediction, classes)

    def _segments(self, record: Record) -> Panoptic:
        """Of the record, or made of its labels: one segment a class."""
        if record.panoptic is not None:
            return record.panoptic
        if record.labels is None:
            raise ValueError(
                "the panoptic task needs segments, or labels of pixels; the data has neither"
            )
        labels, valid = valid_labels(record.labels, self.num_classes, where=record.where)
        labels = jnp.where(valid, labels, -1)
        classes = jnp.arange(self.num_classes)
        present = (labels[..., None] == classes).any((-3, -2))
        return Panoptic(labels, jnp.broadcast_to(classes, present.shape), present)
