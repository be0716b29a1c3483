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
from segjax.models import QueryOutput
from segjax.models.layers import inside
from segjax.tasks.inputs import ImageTask
from segjax.typing import Array, Instances, Panoptic, Record


@dataclasses.dataclass(frozen=True)
class PanopticTask(ImageTask):
    """Inputs, losses, predictions and metrics of a model that finds segments of things and stuff.

    Where a data source has labels alone, every class of an image is one segment of stuff. So a
    model of queries learns semantic segmentation.

    Attributes:
      num_classes: Number of classes of the labels.
      objective: The terms that the model is trained on.
      scale: Factor by which images are resized before the model; masks are resized back.
      mean: Mean of images in 0..1 by channel, from the start again where there are more channels;
        it is subtracted before the model.
      std: Standard deviation likewise, by which what is left is divided.
      needs: What the model takes beside images, as its entry in `segjax.registry` says.
      things: By class, whether its objects are counted one by one; empty where none are.
      max_objects: Number of segments of an image that are learnt, the largest first.
      score_threshold: Class probability that a segment must exceed.
      overlap_threshold: Share of its mask that a segment must win.

    Example:
      >>> PanopticTask.for_model("maskformer_resnet50", num_classes=133).objective.focal
      20.0
    """

    things: tuple[bool, ...] = ()
    max_objects: int = 100
    score_threshold: float = 0.8
    overlap_threshold: float = 0.8

    @property
    def score(self) -> str:
        """The metric of which the best checkpoint has most."""
        return "pq"

    def targets(self, record: Record) -> Instances:
        """The largest segments, `max_objects` of them at most, of things and of stuff."""
        segments = self._segments(record)
        most = min(self.max_objects, segments.valid.shape[-1])
        return panoptic_to_instances(segments, max_instances=most)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Panoptic:
        """The segments of images.

        Args:
          model: Flax module that gives a `QueryOutput` with masks.
          variables: Variables of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, (height, width) of the pictures at the top left of their canvases;
            None where they fill them.

        Returns:
          Segments `[b, h, w]`.

        Raises:
          ValueError: if the model has no masks.
        """
        outputs = self.outputs(model, variables, images, sizes)
        if not isinstance(outputs, QueryOutput) or outputs.mask_logits is None:
            boxes = " without masks" if isinstance(outputs, QueryOutput) else ""
            raise ValueError(
                "model: expected one of queries with masks for the panoptic task, such as "
                f"mask2former_tiny, got one that gives a {type(outputs).__name__}{boxes}"
            )
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
