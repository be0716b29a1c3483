"""Instance segmentation: which objects there are, each with a mask or a box."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from segjax import inference, losses, metrics, ops, viz
from segjax.data import Classes, panoptic_to_instances
from segjax.mapping import map_shards
from segjax.matching.proposals import NEITHER
from segjax.models import DetectionOutput, MaskRCNN, QueryOutput, SampledOutput
from segjax.models.layers import inside
from segjax.numerics import Average
from segjax.tasks.queries import QueryTask, countable, example_keys, picture_pixels
from segjax.typing import Array, Instances, Record

_SCORES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100")


@dataclasses.dataclass(frozen=True)
class InstanceTask(QueryTask):
    """How an instance model is fed, trained, judged and asked.

    Objects are a record's instances, or else its panoptic segments of things. Of a model that
    predicts masks these are judged, otherwise its boxes. A Mask R-CNN has the objective of its
    paper, every term of weight 1, and of `loss` reads `max_objects` alone.

    Attributes:
      max_instances: the most that are predicted of an image.
      nms_threshold: the IoU of boxes above which a surer object of the same class suppresses
        another; None keeps all, as those of a set are.
    """

    max_instances: int = 100
    nms_threshold: float | None = None

    @property
    def score(self) -> str:
        """What the best checkpoint has most of."""
        return "ap"

    def targets(self, record: Record) -> Instances:
        """The largest objects, `loss.max_objects` of them at most."""
        return self._objects(record, most=self.loss.max_objects)

    def apply(
        self, model: nn.Module, variables: dict, record: Record, key: jax.Array, **options: Any
    ) -> Any:
        """As `Task.apply`; a Mask R-CNN samples by the objects."""
        if isinstance(model, MaskRCNN):
            options |= {"targets": self.targets(record), "keys": example_keys(key, record)}
        return super().apply(model, variables, record, key, **options)

    def losses(
        self, outputs: QueryOutput | SampledOutput, record: Record, key: jax.Array
    ) -> dict[str, Average]:
        """The terms of the objective, each to be summed over devices before it is divided.

        Args:
          outputs: of the model in training, batch axis first.
          record: the batch: its objects, `where`, `index` and `valid`.
          key: random key, the same on all devices.

        Returns:
          The weighted averages by name.
        """
        if isinstance(outputs, QueryOutput):
            return super().losses(outputs, record, key)
        targets = self.targets(record)
        anchor_matches, matches = outputs.anchor_matches, outputs.matches
        if record.valid is not None:
            anchor_matches, matches = (
                jnp.where(record.valid[:, None], x, NEITHER) for x in (anchor_matches, matches)
            )
        masks = outputs.mask_logits
        first = slice(masks.shape[1])
        return {
            **losses.rpn_loss(
                outputs.objectness, outputs.anchor_deltas, outputs.anchors, anchor_matches, targets
            ),
            **losses.box_head_loss(
                outputs.class_logits, outputs.box_deltas, outputs.proposals, matches, targets
            ),
            **losses.mask_head_loss(
                masks,
                outputs.proposals[:, first],
                matches[:, first],
                targets,
                pixels=countable(record, targets),
            ),
        }

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Instances:
        """The objects in images.

        Args:
          model: gives a `QueryOutput` or a `DetectionOutput`.
          variables: of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, of the pictures; None where they fill their canvases.

        Returns:
          Objects `[b, n]`, with masks `[b, n, h, w]` if the model predicts any.
        """
        shape = (images.shape[-3], images.shape[-2])
        if isinstance(model, MaskRCNN):
            return self._suppress(self._detect(model, variables, images, sizes))
        outputs = self.outputs(model, variables, images, sizes)
        logits, masks = outputs.class_logits, outputs.mask_logits
        if masks is None:
            assert outputs.boxes is not None
            found = inference.object_detection(
                logits, outputs.boxes, shape if sizes is None else sizes
            )
            return self._suppress(found)
        things = jnp.array(self.things, bool) if self.things else None
        segment = functools.partial(
            inference.instance_segmentation,
            shape=shape,
            rule="mask2former" if outputs.boxes is None else "detr",
            things=things,
            max_instances=self.max_instances,
        )
        where = None if sizes is None else inside(sizes, shape)
        found = map_shards(lambda *x: segment(*x[:2], where=x[2]), logits, masks, where)
        return self._suppress(found)

    def _detect(self, model, variables, images, sizes) -> Instances:
        """The objects that proposals led to, their masks pasted at the images' size."""
        shape = (images.shape[-3], images.shape[-2])
        inputs, options = self.scaled_inputs(model, images, sizes)
        with self.blind_beyond(model, inputs, sizes):
            found: DetectionOutput = model.apply(variables, inputs, **options)
        factors = [shape[1] / inputs.shape[-2], shape[0] / inputs.shape[-3]]
        objects = dataclasses.replace(
            found.objects, boxes=found.objects.boxes * jnp.array(factors * 2)
        )
        paste = functools.partial(inference.paste_objects, shape=shape)
        return map_shards(paste, objects, found.mask_logits)

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
