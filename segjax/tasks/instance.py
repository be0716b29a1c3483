"""Instance segmentation: which objects there are, each with a mask or a box."""

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
    """Inputs, losses, predictions and metrics of a model that finds objects.

    Objects are a record's instances, or else its panoptic segments of things. Masks are judged
    where the model predicts masks, otherwise boxes.

    Attributes:
      num_classes: Number of classes of the labels.
      objective: The terms that the model is trained on.
      scale: Factor by which images are resized before the model; masks are resized back.
      mean: Mean of images in 0..1 by channel, from the start again where there are more channels;
        it is subtracted before the model.
      std: Standard deviation likewise, by which what is left is divided.
      needs: What the model takes beside images, as its entry in `segjax.registry` says.
      things: By class, whether its objects are counted one by one; empty where all are.
      max_objects: Number of objects of an image that are learnt, the largest first.
      max_instances: Number of objects of an image that are predicted at most.
      nms_threshold: IoU of boxes above which a surer object of the same class suppresses another;
        None keeps all, as is right for a set of predictions.

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
        """The metric of which the best checkpoint has most."""
        return "ap"

    def targets(self, record: Record) -> Instances:
        """The largest objects, `max_objects` of them at most."""
        return self._objects(record, most=self.max_objects)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Instances:
        """The objects in images.

        Args:
          model: Flax module that gives a `QueryOutput` or a `DetectionOutput`.
          variables: Variables of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, (height, width) of the pictures at the top left of their canvases;
            None where they fill them.

        Returns:
          Objects `[b, n]`, with masks `[b, n, h, w]` if the model predicts any.

        Raises:
          ValueError: if the model gives anything else.
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
                    "model: expected one of objects for the instance task, such as "
                    f"mask2former_tiny, got one that gives a {type(outputs).__name__}"
                )
        return self._suppress(found)

    def _segment(
        self, outputs: QueryOutput, shape: tuple[int, int], sizes: Array | None
    ) -> Instances:
        """The objects that queries found, their masks at the images' size."""
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
        """The objects that proposals led to, their masks pasted at the images' size."""
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
        """What became of every object of a batch; `compute` gives COCO's figures."""
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
        """COCO's figures, in 0..1: means, and each class's AP by name.

        Args:
          metric: of all examples.
          classes: their names.

        Returns:
          `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar_100` (−1 where there is
          no such object), and `ap/NAME` for the classes that have objects.
        """
        scores = metric.compute()
        figures = {name: float(getattr(scores, name)) for name in _SCORES}
        for name, ap in zip(classes.names, scores.class_ap, strict=True):
            if ap >= 0:
                figures[f"ap/{name}"] = float(ap)
        return figures

    def draw(self, record: Record, prediction: Instances, classes: Classes) -> viz.Row:
        """The picture, its objects, and the predicted ones of score one half or more."""
        truth = jax.device_get(self._objects(record))
        return viz.compare_instances(record.require("image"), truth, prediction, classes)

    def _objects(self, record: Record, *, most: int | None = None) -> Instances:
        """Of the record, or its segments of things; the `most` largest of them."""
        if record.instances is not None:
            return _largest(record.instances, most)
        if record.panoptic is None:
            raise ValueError("the instance task needs objects or segments; the data has neither")
        if most is not None:
            most = min(most, record.panoptic.valid.shape[-1])
        return panoptic_to_instances(record.panoptic, things=self.things, max_instances=most)


def _largest(objects: Instances, most: int | None) -> Instances:
    """`[*b, most]` of `[*b, n]`, or all."""
    if most is None or objects.valid.shape[-1] <= most:
        return objects
    areas = ops.box_area(objects.boxes) if objects.areas is None else objects.areas
    _, rows = jax.lax.top_k(jnp.where(objects.valid, areas, -1), most)

    def take(x):
        places = jnp.expand_dims(rows, range(rows.ndim, x.ndim))
        return jnp.take_along_axis(jnp.asarray(x), places, axis=rows.ndim - 1)

    return jax.tree.map(take, objects)
