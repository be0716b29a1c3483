"""Panoptic segmentation: every pixel belongs to one segment, of a thing or of stuff."""

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
    """Inputs, losses, predictions and metrics of panoptic segmentation.

    If a data set has only pixel labels, each class of an image is one segment of stuff. So a model
    with queries can be trained for semantic segmentation.

    Attributes:
      num_classes: Number of classes.
      objective: Training objective.
      scale: Factor by which images are resized before the model; masks are resized back.
      mean: Mean of each channel of images in 0..1, subtracted from the inputs. It is repeated for
        images with more channels.
      std: Standard deviation of each channel, by which the inputs are divided. Repeated like mean.
      needs: Inputs of the model in addition to images, as in `segjax.registry.Entry`.
      things: Whether each class is a thing, which has countable objects; empty if no class is.
      max_objects: Maximum number of segments per training image; the largest are used.
      score_threshold: Minimum class probability of a predicted segment.
      overlap_threshold: Minimum share of its mask that a predicted segment keeps after overlaps are
        resolved.

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
        """The metric by which the best checkpoint is chosen."""
        return "pq"

    def targets(self, record: Record) -> Instances:
        """The true segments of a batch: the `max_objects` largest of each image."""
        segments = self._segments(record)
        most = min(self.max_objects, segments.valid.shape[-1])
        return panoptic_to_instances(segments, max_instances=most)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Panoptic:
        """Predicts the segments of images.

        Args:
          model: Flax module that returns a `QueryOutput` with masks.
          variables: Variables of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, (height, width) of each image without the padding at its bottom and
            right; None if there is no padding.

        Returns:
          Segments `[b, h, w]` and their classes.

        Raises:
          ValueError: If the model returns anything else.
        """
        outputs = self.outputs(model, variables, images, sizes)
        if not isinstance(outputs, QueryOutput) or outputs.mask_logits is None:
            boxes = " without masks" if isinstance(outputs, QueryOutput) else ""
            raise ValueError(
                "model: expected one for panoptic segmentation, such as mask2former_tiny, got one "
                f"that returns a {type(outputs).__name__}{boxes}"
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
        """Matches the predicted segments of a batch with the true ones.

        Args:
          predictions: Segments from `predict`.
          record: Batch.

        Returns:
          Metric over the batch.
        """
        targets = self._segments(record)
        if record.valid is not None:
            predictions, targets = (
                dataclasses.replace(x, valid=x.valid & record.valid[..., None])
                for x in (predictions, targets)
            )
        return metrics.panoptic_quality(predictions, targets, num_classes=self.num_classes)

    def summary(self, metric: metrics.PanopticQuality, classes: Classes) -> dict[str, float]:
        """Computes the panoptic, segmentation and recognition quality, in 0..1.

        Args:
          metric: Metric over all examples.
          classes: Classes of the data.

        Returns:
          `pq`, `sq` and `rq`; `pq_things` and `pq_stuff` if some classes are things; and `pq/NAME`,
          `sq/NAME` and `rq/NAME` of each class that occurs in labels or predictions.
        """
        result = metric.compute()
        scores = {"pq": result.pq, "sq": result.sq, "rq": result.rq}
        if any(self.things):
            things = jnp.array(self.things)
            scores["pq_things"] = metric.compute(where=things).pq
            scores["pq_stuff"] = metric.compute(where=~things).pq
        seen = metric.true_positives + metric.false_positives + metric.false_negatives
        for i in np.flatnonzero(np.asarray(seen)):
            name = classes.names[i]
            scores[f"pq/{name}"] = result.class_pq[i]
            scores[f"sq/{name}"] = result.class_sq[i]
            scores[f"rq/{name}"] = result.class_rq[i]
        return {name: float(value) for name, value in scores.items()}

    def draw(self, record: Record, prediction: Panoptic, classes: Classes) -> viz.Row:
        """Draws an image, its true segments and the predicted ones.

        Args:
          record: One example of NumPy arrays, without batch axis.
          prediction: Segments predicted for it, without batch axis.
          classes: Classes of the data.

        Returns:
          Row of pictures.
        """
        truth = jax.device_get(self._segments(record))
        return viz.compare_segments(record.require("image"), truth, prediction, classes)

    def _segments(self, record: Record) -> Panoptic:
        """The segments of a record, or made from its labels: one segment per class."""
        if record.panoptic is not None:
            return record.panoptic
        if record.labels is None:
            raise ValueError(
                "data: expected panoptic segments or pixel labels for panoptic segmentation, got "
                "neither"
            )
        labels, valid = valid_labels(record.labels, self.num_classes, where=record.where)
        labels = jnp.where(valid, labels, -1)
        classes = jnp.arange(self.num_classes)
        present = (labels[..., None] == classes).any((-3, -2))
        return Panoptic(labels, jnp.broadcast_to(classes, present.shape), present)
