"""Instance segmentation: a class, a score and a mask or box for each object."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from segjax import inference, metrics, ops, viz
from segjax.data import Classes, panoptic_to_instances
from segjax.mapping import map_shards
from segjax.models import DetectionOutput, QueryOutput
from segjax.models.layers import inside
from segjax.objectives.records import picture_pixels
from segjax.tasks.inputs import ImageTask, scaled
from segjax.typing import Array, Instances, Record

_SCORES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100")


@dataclasses.dataclass(frozen=True)
class InstanceTask(ImageTask):
    """Inputs, losses, predictions and metrics of instance segmentation or detection.

    The true objects are the instances of a record or, if it has none, its panoptic segments of
    things. Metrics compare masks if the model predicts masks, and boxes otherwise.

    Attributes:
      num_classes: Number of classes.
      objective: Training objective.
      scale: Factor by which images are resized before the model; masks are resized back.
      mean: Mean of each channel of images in 0..1, subtracted from the inputs. It is repeated for
        images with more channels.
      std: Standard deviation of each channel, by which the inputs are divided. Repeated like mean.
      needs: Inputs of the model in addition to images, as in `segjax.registry.Entry`.
      things: Whether each class is a thing, which has countable objects; empty if all classes are.
      max_objects: Maximum number of objects per training image; the largest are used.
      max_instances: Maximum number of predicted objects per image.
      nms_threshold: Box IoU above which non-maximum suppression removes the object with the lower
        score; None applies no suppression, as is usual for set prediction.

    Example:
      >>> InstanceTask.for_model("maskrcnn_resnet50_fpn", num_classes=80).needs
      ('sizes', 'targets')
    """

    things: tuple[bool, ...] = ()
    max_objects: int = 100
    max_instances: int = 100
    nms_threshold: float | None = None

    @property
    def score(self) -> str:
        """The metric by which the best checkpoint is chosen."""
        return "ap"

    def targets(self, record: Record) -> Instances:
        """The true objects of a batch: the `max_objects` largest of each image."""
        return self._objects(record, most=self.max_objects)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Instances:
        """Predicts the objects of images.

        Args:
          model: Flax module that returns a `QueryOutput` or a `DetectionOutput`.
          variables: Variables of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, (height, width) of each image without the padding at its bottom and
            right; None if there is no padding.

        Returns:
          Objects `[b, n]` with scores, and with masks `[b, n, h, w]` if the model predicts masks.

        Raises:
          ValueError: If the model returns anything else.
        """
        shape = (images.shape[-3], images.shape[-2])
        match outputs := self.outputs(model, variables, images, sizes):
            case DetectionOutput():
                found = self._paste(outputs, shape)
            case QueryOutput(mask_logits=None):
                assert outputs.boxes is not None
                found = inference.object_detection(
                    outputs.class_logits, outputs.boxes, shape if sizes is None else sizes
                )
            case QueryOutput():
                found = self._segment(outputs, shape, sizes)
            case _:
                raise ValueError(
                    "model: expected one for instance segmentation, such as mask2former_tiny, got "
                    f"one that returns a {type(outputs).__name__}"
                )
        return self._suppress(found)

    def _segment(
        self, outputs: QueryOutput, shape: tuple[int, int], sizes: Array | None
    ) -> Instances:
        """The objects of queries, with masks of the size of the images."""
        segment = functools.partial(
            inference.instance_segmentation,
            shape=shape,
            rule="mask2former" if outputs.boxes is None else "detr",
            things=jnp.array(self.things, bool) if self.things else None,
            max_instances=self.max_instances,
        )
        where = None if sizes is None else inside(sizes, shape)
        logits, masks = outputs.class_logits, outputs.mask_logits
        return map_shards(lambda *x: segment(*x[:2], where=x[2]), logits, masks, where)

    def _paste(self, outputs: DetectionOutput, shape: tuple[int, int]) -> Instances:
        """The objects of proposals, with masks pasted into the size of the images."""
        height, width = scaled(shape, self.scale)
        factors = [shape[1] / width, shape[0] / height]
        objects = dataclasses.replace(
            outputs.objects, boxes=outputs.objects.boxes * jnp.array(factors * 2)
        )
        paste = functools.partial(inference.paste_objects, shape=shape)
        return map_shards(paste, objects, outputs.mask_logits)

    def _suppress(self, objects: Instances) -> Instances:
        if self.nms_threshold is None:
            return objects
        nms = jax.vmap(functools.partial(ops.batched_nms, iou_threshold=self.nms_threshold))

        def kept(boxes, scores, classes, valid):
            return nms(boxes, scores, classes, where=valid)

        assert objects.scores is not None
        keep = map_shards(kept, objects.boxes, objects.scores, objects.classes, objects.valid)
        return dataclasses.replace(objects, valid=objects.valid & keep)

    def measure(self, predictions: Instances, record: Record) -> metrics.AveragePrecision:
        """Matches the predicted objects of a batch with the true ones.

        Args:
          predictions: Objects from `predict`.
          record: Batch.

        Returns:
          Metric over the batch; its `compute` returns COCO's metrics.
        """
        targets = self._objects(record)
        if predictions.masks is not None:
            masks = predictions.masks & picture_pixels(record)[..., None, :, :]
            valid = predictions.valid & masks.any((-2, -1))
            predictions = dataclasses.replace(predictions, masks=masks, valid=valid)
        if record.valid is not None:
            predictions, targets = (
                dataclasses.replace(x, valid=x.valid & record.valid[..., None])
                for x in (predictions, targets)
            )
        return metrics.average_precision(
            predictions,
            targets,
            num_classes=self.num_classes,
            kind="box" if predictions.masks is None else "mask",
        )

    def summary(self, metric: metrics.AveragePrecision, classes: Classes) -> dict[str, float]:
        """Computes COCO's metrics, in 0..1.

        Args:
          metric: Metric over all examples.
          classes: Classes of the data.

        Returns:
          `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` and `ar_100` (−1 if there are no
          such objects), and `ap/NAME` of each class that has objects.
        """
        result = metric.compute()
        scores = {name: float(getattr(result, name)) for name in _SCORES}
        for name, ap in zip(classes.names, result.class_ap, strict=True):
            if ap >= 0:
                scores[f"ap/{name}"] = float(ap)
        return scores

    def draw(self, record: Record, prediction: Instances, classes: Classes) -> viz.Row:
        """Draws an image, its true objects, and the predicted ones with a score of at least 0.5.

        Args:
          record: One example of NumPy arrays, without batch axis.
          prediction: Objects predicted for it, without batch axis.
          classes: Classes of the data.

        Returns:
          Row of pictures.
        """
        truth = jax.device_get(self._objects(record))
        return viz.compare_instances(record.require("image"), truth, prediction, classes)

    def _objects(self, record: Record, *, most: int | None = None) -> Instances:
        """The instances of a record, or its segments of things; only the `most` largest."""
        if record.instances is not None:
            return _largest(record.instances, most)
        if record.panoptic is None:
            raise ValueError(
                "data: expected objects or panoptic segments for instance segmentation, got neither"
            )
        if most is not None:
            most = min(most, record.panoptic.valid.shape[-1])
        return panoptic_to_instances(record.panoptic, things=self.things, max_instances=most)


def _largest(objects: Instances, most: int | None) -> Instances:
    """The largest objects, `[*b, most]` of `[*b, n]`."""
    if most is None or objects.valid.shape[-1] <= most:
        return objects
    areas = ops.box_area(objects.boxes) if objects.areas is None else objects.areas
    _, rows = jax.lax.top_k(jnp.where(objects.valid, areas, -1), most)

    def take(x):
        places = jnp.expand_dims(rows, range(rows.ndim, x.ndim))
        return jnp.take_along_axis(jnp.asarray(x), places, axis=rows.ndim - 1)

    return jax.tree.map(take, objects)
