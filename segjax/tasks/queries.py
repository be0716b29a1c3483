"""What tasks share whose models predict a set: targets, the objective, and how images go in."""

import contextlib
import dataclasses
import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax import losses, models, ops
from segjax.models import Detr, MaskRCNN, QueryOutput
from segjax.models.layers import inside
from segjax.numerics import Average
from segjax.tasks.loss_weights import SetLoss
from segjax.tasks.semantic import scaled, standardize
from segjax.typing import Array, Instances, Record


@dataclasses.dataclass(frozen=True)
class QueryTask:
    """How a model of queries is fed and trained; what it is asked for is up to the tasks.

    Attributes:
      num_classes: of the labels.
      things: by class, whether its objects are counted one by one; empty where all are alike.
      loss: the objective.
      scale: images are resized by this factor before the model, its masks back after it.
      mean: of images in 0..1, by channel; it is subtracted before the model.
      std: likewise; what is left is divided by it.
    """

    num_classes: int
    things: tuple[bool, ...] = ()
    loss: SetLoss = SetLoss()
    scale: float = 1.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def inputs(self, images: Array) -> Float[jax.Array, "*b h w c"]:
        """What the model takes, from images `[*b, h, w, c]` (uint8, or floating in 0..1)."""
        return standardize(images, self.mean, self.std)

    def apply(
        self, model: nn.Module, variables: dict, record: Record, key: jax.Array, **options: Any
    ) -> Any:
        """The model on a batch in training; see `Task.apply`."""
        inputs = self.inputs(record.require("image"))
        options |= _picture_options(model, inputs, record.size)
        return model.apply(variables, inputs, train=True, **options)

    def targets(self, record: Record) -> Instances:
        """The objects that the queries are to find."""
        raise NotImplementedError

    def losses(self, outputs: QueryOutput, record: Record, key: jax.Array) -> dict[str, Average]:
        """The terms of the objective, each to be summed over devices before it is divided.

        Args:
          outputs: of the model in training, batch axis first.
          record: the batch: its objects, `where`, `index` and `valid`.
          key: random key, the same on all devices.

        Returns:
          The weighted averages by name, those of all earlier layers together.
        """
        targets = self.targets(record)
        where = countable(record, targets)
        if self.loss.matches > 1:
            targets = jax.tree.map(lambda x: jnp.repeat(x, self.loss.matches, axis=1), targets)
        layers = [
            dataclasses.replace(layer, auxiliary=(), attention=())
            for layer in (*outputs.auxiliary, outputs)
        ]

        def layer_terms(numbered):
            number, layer = numbered
            keys = example_keys(jax.random.fold_in(key, number), record)
            return self._terms(layer, targets, record, where, keys)

        # A loop over layers that are alike, so that the matching is compiled once for them. DETR's
        # last one alone may have masks.
        by_layer: list[dict[str, Average]] = []
        for _, group in itertools.groupby(enumerate(layers), lambda x: jax.tree.structure(x[1])):
            numbers, alike = zip(*group, strict=True)
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *alike)
            looped = jax.lax.map(layer_terms, (jnp.array(numbers), stacked))
            by_layer += [jax.tree.map(operator.itemgetter(i), looped) for i in range(len(alike))]
        *earlier, terms = by_layer
        for name in earlier[0] if earlier else ():
            # The weight is the same in each layer.
            totals = jnp.stack([layer[name].total for layer in earlier])
            total = self.loss.auxiliary * jnp.sum(totals)
            terms[f"auxiliary/{name}"] = Average(total, earlier[0][name].weight)
        return terms

    def _terms(self, outputs, targets, record, where, keys) -> dict[str, Average]:
        """Those of one layer."""
        loss = self.loss
        options = {
            "where": where,
            "examples": record.valid,
            "class_weight": loss.cross_entropy,
            "dice_weight": loss.dice,
            "no_object_weight": loss.no_object,
        }
        if outputs.boxes is not None:
            return losses.detr_loss(
                outputs.class_logits,
                outputs.boxes,
                targets,
                where.shape[-2:] if record.size is None else record.size,
                mask_logits=outputs.mask_logits,
                l1_weight=loss.l1,
                giou_weight=loss.giou,
                focal_weight=loss.mask,
                **options,
            )
        logits = outputs.class_logits, outputs.mask_logits
        if loss.points == 0:
            return losses.maskformer_loss(*logits, targets, focal_weight=loss.mask, **options)
        return losses.mask2former_loss(
            keys, *logits, targets, points=loss.points, mask_weight=loss.mask, **options
        )

    def outputs(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None
    ) -> QueryOutput:
        """What the model says of images of any size; see `Task.predict`."""
        inputs, options = self.scaled_inputs(model, images, sizes)
        with self.blind_beyond(model, inputs, sizes):
            outputs = model.apply(variables, inputs, **options)
        if not isinstance(outputs, QueryOutput):
            raise ValueError(
                f"the model gives a {type(outputs).__name__}; objects and segments need one of "
                "queries, such as mask2former_tiny"
            )
        return outputs

    def canvas_invariant(self, model: nn.Module) -> bool:
        """As `Task.canvas_invariant`: where the model is, and no picture is rescaled for it."""
        return self.scale == 1 and models.is_canvas_invariant(model)

    def blind_beyond(
        self, model: nn.Module, inputs: Array, sizes: Array | None
    ) -> contextlib.AbstractContextManager[None]:
        """`models.blind_beyond`, where that makes predictions the same on every canvas."""
        sizes = sizes if self.canvas_invariant(model) else None
        return models.blind_beyond(sizes, (inputs.shape[-3], inputs.shape[-2]))

    def scaled_inputs(
        self, model: nn.Module, images: Array, sizes: Array | None
    ) -> tuple[Float[jax.Array, "*b sh sw c"], dict[str, Any]]:
        """What the model takes outside training, where images have their own size."""
        inputs = self.inputs(images)
        if self.scale != 1:
            canvas = (images.shape[-3], images.shape[-2])
            shape = scaled(canvas, self.scale)
            inputs = ops.resize(inputs, shape, antialias=True)
            if sizes is not None:
                sizes = -(-jnp.asarray(sizes) * jnp.array(shape) // jnp.array(canvas))
        return inputs, _picture_options(model, inputs, sizes)


def _picture_options(model: nn.Module, inputs: Array, sizes: Array | None) -> dict[str, Any]:
    """How a model is told what of each input, `[*b, h, w, c]`, is its picture, if it asks."""
    match model:
        case Detr() if sizes is not None:
            return {"where": inside(sizes, (inputs.shape[-3], inputs.shape[-2]))}
        case MaskRCNN():
            return {"sizes": sizes}
    return {}


def example_keys(key: jax.Array, record: Record) -> jax.Array:
    """`[b]` random keys, one for each example, the same on however many devices."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, record.require("index"))


def countable(record: Record, targets: Instances) -> Bool[jax.Array, "b h w"]:
    """The pixels that masks are compared at: neither void nor of a crowd."""
    *batch, height, width, _ = record.require("image").shape
    where = jnp.ones((*batch, height, width), bool)
    if record.where is not None:
        where &= record.where
    if targets.crowd is None or targets.masks is None:
        return where
    crowd = targets.masks & (targets.crowd & targets.valid)[..., None, None]
    return where & ~crowd.any(-3)


def picture_pixels(record: Record) -> Bool[jax.Array, "b h w"]:
    """The pixels of the picture on its canvas."""
    *batch, height, width, _ = record.require("image").shape
    if record.size is None:
        return jnp.ones((*batch, height, width), bool)
    return inside(record.size, (height, width))
