"""Semantic segmentation: one class for each pixel."""

import dataclasses

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from segjax import inference, metrics, viz
from segjax.data import Classes, as_float
from segjax.metrics.sums import Sums
from segjax.models import SemanticOutput
from segjax.objectives import Objective, PixelObjective
from segjax.objectives.records import counted_pixels
from segjax.tasks.inputs import ImageTask
from segjax.typing import Array, Record


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SemanticMetric(Sums):
    """How well the pixels of some examples were classified.

    Attributes:
      confusion: How often each label was predicted as each class.
      boundaries: How well the borders of the classes match.
    """

    confusion: metrics.ConfusionMatrix
    boundaries: metrics.LabelBoundaries


@dataclasses.dataclass(frozen=True)
class SemanticTask(ImageTask):
    """Inputs, losses, predictions and metrics of a semantic model.

    Predictions may be means over windows and over several views of a picture.

    Attributes:
      num_classes: Number of classes of the labels.
      objective: The terms that the model is trained on.
      scale: Factor by which images are resized before the model; probabilities are resized back.
      mean: Mean of images in 0..1 by channel, from the start again where there are more channels;
        it is subtracted before the model.
      std: Standard deviation likewise, by which what is left is divided.
      needs: What the model takes beside images, as its entry in `segjax.registry` says.
      window: (height, width) in pixels of the windows that slide over larger pictures; None sees
        the whole picture at once.
      overlap: Share of a window's sides that it has in common with the next, 0 up to below 1.
      scales: Predictions are the mean over the picture resized by each of these factors.
      flip: Predictions are the mean over the picture and its mirror image.

    Example:
      >>> SemanticTask.for_model("segformer_b0", num_classes=19).objective.dice
      0.0
    """

    objective: Objective = PixelObjective()
    window: tuple[int, int] | None = None
    overlap: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def score(self) -> str:
        """The metric of which the best checkpoint has most."""
        return "mean_iou"

    def targets(self, record: Record) -> Array:
        """The labels `[*b, h, w]`."""
        return record.require("labels")

    def canvas_invariant(self, model: nn.Module) -> bool:
        """Whether the model is canvas-invariant, and sees the picture as a whole, once."""
        is_whole = self.window is None and self.scales == (1.0,) and not self.flip
        return is_whole and super().canvas_invariant(model)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Float[jax.Array, "*b h w classes"]:
        """The class probabilities of each pixel, of the images' size.

        Args:
          model: Flax module that gives a `SemanticOutput`.
          variables: Variables of the model.
          images: `[*b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[*b, 2]`, (height, width) of the pictures at the top left of their canvases,
            beyond whose own canvases a model that is `canvas_invariant` sees nothing; None where
            they fill them.

        Returns:
          `[*b, h, w, classes]`.

        Raises:
          ValueError: if the model gives anything else.
        """

        def whole(images):
            outputs = self.outputs(model, variables, images, sizes)
            if not isinstance(outputs, SemanticOutput):
                raise ValueError(
                    "model: expected one of pixels' classes for the semantic task, such as unet, "
                    f"got one that gives a {type(outputs).__name__} (the panoptic task learns "
                    "labels with queries)"
                )
            return inference.semantic_probs(outputs.logits, images.shape[-3:-1])

        def windowed(images):
            if self.window is None:
                return whole(images)
            height, width = np.minimum(self.window, images.shape[1:3]).tolist()
            window = (height, width)
            return inference.sliding_window(whole, images, window=window, overlap=self.overlap)

        if self.scales == (1.0,) and not self.flip:
            return windowed(images)
        return inference.average_over_views(
            windowed, as_float(images), scales=self.scales, flip=self.flip
        )

    def measure(self, predictions: Array, record: Record) -> SemanticMetric:
        """What became of the batch's pixels that count, from their probabilities."""
        if (labels := record.labels) is None:
            raise ValueError("the semantic task needs labels of pixels; the data has none")
        predicted, where = inference.semantic_labels(predictions), counted_pixels(record)
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
