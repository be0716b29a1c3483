"""Semantic segmentation: one class for each pixel."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from segjax import inference, losses, metrics, models, ops, viz
from segjax.data import Classes, as_float
from segjax.labels import valid_labels
from segjax.mapping import map_shards
from segjax.metrics.sums import Sums
from segjax.models import SemanticOutput
from segjax.numerics import Average, accumulation_dtype
from segjax.tasks.loss_weights import SemanticLoss
from segjax.typing import Array, Record


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SemanticMetric(Sums):
    """What became of the pixels of some examples.

    Attributes:
      confusion: how often each label was predicted as each class.
      boundaries: how well the borders of the classes match.
    """

    confusion: metrics.ConfusionMatrix
    boundaries: metrics.LabelBoundaries


@dataclasses.dataclass(frozen=True)
class SemanticTask:
    """How a semantic model is fed, trained, judged and asked.

    Attributes:
      num_classes: of the labels.
      loss: the objective.
      scale: images are resized by this factor before the model, its logits back after it.
      mean: of images in 0..1, by channel, from the start again where there are more; it is
        subtracted before the model.
      std: likewise; what is left is divided by it.
    """

    num_classes: int
    loss: SemanticLoss = SemanticLoss()
    scale: float = 1.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    @property
    def score(self) -> str:
        """What the best checkpoint has most of."""
        return "mean_iou"

    def inputs(self, images: Array) -> Float[jax.Array, "*b h w c"]:
        """What the model takes, from images `[*b, h, w, c]` (uint8, or floating in 0..1)."""
        return standardize(images, self.mean, self.std)

    def apply(
        self, model: nn.Module, variables: dict, record: Record, key: jax.Array, **options: Any
    ) -> Any:
        """The model on a batch in training; see `Task.apply`."""
        return model.apply(variables, self.inputs(record.require("image")), train=True, **options)

    def losses(
        self, outputs: SemanticOutput, record: Record, key: jax.Array | None = None
    ) -> dict[str, Average]:
        """The terms of the objective, each to be summed over devices before it is divided.

        Their weights depend on the labels alone.

        Args:
          outputs: of the model in training, batch axis first.
          record: the batch: `labels`, `where` and `valid`.
          key: not needed: nothing is drawn.

        Returns:
          The weighted averages by name; the objective is the sum of their values.
        """
        labels, where = valid_labels(
            record.require("labels"), self.num_classes, where=counted(record)
        )
        heads = [("", 1.0, outputs.logits)]
        for i, logits in enumerate(outputs.auxiliary):
            heads.append((f"auxiliary_{i + 1}/", self.loss.auxiliary / 2**i, logits))
        terms = {}
        present = map_shards(self._present, labels, where)
        pixel_weights = self._pixel_weights(labels, where)
        for prefix, weight, logits in heads:
            of_pixels, of_classes = self._losses(logits, labels, where)
            if self.loss.cross_entropy:
                average = Average(jnp.sum(of_pixels), jnp.sum(pixel_weights))
                terms[f"{prefix}cross_entropy"] = average * (weight * self.loss.cross_entropy)
            if self.loss.dice:
                # Of the classes that are not there cross-entropy takes care.
                average = Average.of(of_classes, where=present)
                terms[f"{prefix}dice"] = average * (weight * self.loss.dice)
            if self.loss.lovasz:
                full_size = ops.resize(logits, (labels.shape[-2], labels.shape[-1]))
                average = self._lovasz(full_size, labels, where)
                terms[f"{prefix}lovasz"] = average * (weight * self.loss.lovasz)
        return terms

    def _losses(self, logits, labels, where) -> tuple[jax.Array, jax.Array]:
        """The weighted cross-entropy or focal loss by pixel, and the Dice loss by class."""
        shape = labels.shape[-2:]
        is_plain = not (self.loss.focal_gamma or self.loss.label_smoothing)
        if is_plain and logits.shape[-3:-1] != shape:
            # A block of rows at a time: neither resized logits nor probabilities are held.
            fused = losses.resized_cross_entropy_and_dice
            together = lambda x, y, where: fused(x, y, where=where)
            of_pixels, of_classes = map_shards(together, logits, labels, where)
            return of_pixels * self._pixel_weights(labels, where), of_classes
        logits = ops.resize(logits, shape)
        weights = self.loss.class_weights
        class_weights = None if weights is None else jnp.array(weights)
        options = {"class_weights": class_weights, "where": where}
        if gamma := self.loss.focal_gamma:
            of_pixels = losses.softmax_focal_loss(logits, labels, gamma=gamma, **options)
        else:
            smoothing = self.loss.label_smoothing
            of_pixels = losses.softmax_cross_entropy(
                logits, labels, label_smoothing=smoothing, **options
            )
        targets = labels[..., None] == jnp.arange(self.num_classes)
        of_classes = losses.dice_loss(
            _probs(logits, where), targets, axis=(-3, -2), where=where[..., None]
        )
        return of_pixels, of_classes

    def _pixel_weights(self, labels: Array, where: Array) -> jax.Array:
        weights = jnp.array(self.loss.class_weights or [1.0] * self.num_classes)
        return losses.pixel_weights(labels, weights, where=where)

    def _present(self, labels: Array, where: Array) -> jax.Array:
        """`[b, classes]`: which classes each image has."""
        nowhere = jnp.zeros(self.num_classes, bool)
        return jax.vmap(lambda y, counts: nowhere.at[y].max(counts))(labels, where)

    def _lovasz(self, logits, labels, where) -> Average:
        loss = jax.vmap(lambda p, y, w: losses.lovasz_softmax_loss(p, y, where=w))
        return Average.of(loss(_probs(logits, where), labels, where), where=where.any((-2, -1)))

    def canvas_invariant(self, model: nn.Module) -> bool:
        """As `Task.canvas_invariant`: where the model is, and no picture is rescaled for it."""
        return self.scale == 1 and models.is_canvas_invariant(model)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Float[jax.Array, "*b h w classes"]:
        """The class probabilities of each pixel, of the images' size.

        Args:
          model: gives a `SemanticOutput`.
          variables: of the model.
          images: `[*b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[*b, 2]`, (height, width) of the pictures at the top left of their canvases,
            beyond whose own canvases a model that is `canvas_invariant` sees nothing; None where
            they fill them.

        Returns:
          `[*b, h, w, classes]`.
        """
        *_, height, width, _ = images.shape
        inputs = self.inputs(images)
        if self.scale != 1:
            inputs = ops.resize(inputs, scaled((height, width), self.scale), antialias=True)
        sizes = sizes if self.canvas_invariant(model) else None
        with models.blind_beyond(sizes, (height, width)):
            outputs = model.apply(variables, inputs)
        if not isinstance(outputs, SemanticOutput):
            raise ValueError(
                f"the model gives a {type(outputs).__name__}; the semantic task needs one of "
                "pixels' classes, such as unet (the panoptic task learns labels with queries)"
            )
        return inference.semantic_probs(outputs.logits, (height, width))

    def measure(self, predictions: Array, record: Record) -> SemanticMetric:
        """What became of the batch's pixels that count, from their probabilities."""
        if (labels := record.labels) is None:
            raise ValueError("the semantic task needs labels of pixels; the data has none")
        predicted, where = inference.semantic_labels(predictions), counted(record)
        return SemanticMetric(
            metrics.ConfusionMatrix(
                metrics.confusion_matrix(predicted, labels, self.num_classes, where=where)
            ),
            metrics.label_boundaries(
                predicted, labels, self.num_classes, where=where, sizes=record.size
            ),
        )

    def summary(self, metric: SemanticMetric, classes: Classes) -> dict[str, float]:
        """The scores of pixels and of borders: means, and each class's IoU by name.

        Args:
          metric: of all examples, its counts on the host as int64 where there are many.
          classes: their names.

        Returns:
          `mean_iou`, `mean_boundary_iou`, `mean_dice`, `pixel_accuracy`, `frequency_weighted_iou`,
          and `iou/NAME` and `boundary_iou/NAME` for the classes that the labels or the predictions
          hold.
        """
        scores, borders = metric.confusion.compute(), metric.boundaries.compute()
        counts = metric.confusion.counts
        present = (counts.sum(0) + counts.sum(1)) > 0
        figures = {
            "mean_iou": scores.mean_iou,
            "mean_boundary_iou": borders.mean_boundary_iou,
            "mean_dice": scores.dice_score,
            "pixel_accuracy": scores.pixel_accuracy,
            "frequency_weighted_iou": scores.frequency_weighted_iou,
        }
        for i, name in enumerate(classes.names):
            if present[i]:
                figures[f"iou/{name}"] = scores.class_iou[i]
                figures[f"boundary_iou/{name}"] = borders.class_boundary_iou[i]
        return {name: float(value) for name, value in figures.items()}

    def draw(self, record: Record, prediction: Array, classes: Classes) -> viz.Row:
        """The picture, its labels, those predicted and the errors, side by side."""
        image, labels = record.require("image"), record.require("labels")
        predicted = np.asarray(inference.semantic_labels(prediction))
        return viz.compare_labels(image, labels, predicted, classes, where=record.where)


def _probs(logits: Array, where: Array) -> jax.Array:
    logits = jnp.where(where[..., None], logits, 0)  # a NaN in void has no gradient either
    return jax.nn.softmax(logits.astype(accumulation_dtype(logits)))


def counted(record: Record) -> Array:
    """`[*b, h, w]`: the pixels that count: neither void nor of an example that fills up a batch."""
    where = record.where
    if where is None:
        where = jnp.ones(record.require("labels").shape, bool)
    return where if record.valid is None else where & record.valid[..., None, None]


def scaled(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, at least one pixel each."""
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def standardize(
    images: Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[jax.Array, "*b h w c"]:
    """`(image − mean) / std` of images in 0..1, by channel; from the start again where more."""
    channels = (images.shape[-1],)
    means, stds = (jnp.resize(jnp.array(x), channels) for x in (mean, std))
    return (as_float(images) - means) / stds
