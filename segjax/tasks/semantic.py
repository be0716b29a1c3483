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
    """Metric of semantic segmentation.

    Attributes:
      confusion: Confusion matrix of pixels, for IoU, Dice and accuracy.
      boundaries: Sums for the boundary IoU of each class.
    """

    confusion: metrics.ConfusionMatrix
    boundaries: metrics.LabelBoundaries


@dataclasses.dataclass(frozen=True)
class SemanticTask(ImageTask):
    """Inputs, losses, predictions and metrics of semantic segmentation.

    Attributes:
      num_classes: Number of classes.
      objective: Training objective.
      scale: Factor by which images are resized before the model; probabilities are resized back.
      mean: Mean of each channel of images in 0..1, subtracted from the inputs. It is repeated for
        images with more channels.
      std: Standard deviation of each channel, by which the inputs are divided. Repeated like mean.
      needs: Inputs of the model in addition to images, as in `segjax.registry.Entry`.
      window: (height, width) in pixels of the sliding window for prediction; None predicts the
        whole image at once.
      overlap: Overlap of neighbouring windows as a share of their size, at least 0 and below 1.
      scales: Test-time augmentation: average the predictions for the image resized by these
        factors.
      flip: Test-time augmentation: average the predictions for the image and its mirror image.

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
        """The metric by which the best checkpoint is chosen."""
        return "mean_iou"

    def targets(self, record: Record) -> Array:
        """The labels `[*b, h, w]` of a batch."""
        return record.require("labels")

    def canvas_invariant(self, model: nn.Module) -> bool:
        """Whether predictions do not depend on padding.

        Args:
          model: Flax module.

        Returns:
          Whether `models.is_canvas_invariant` holds and each image is predicted as a whole, once.
        """
        is_whole = self.window is None and self.scales == (1.0,) and not self.flip
        return is_whole and super().canvas_invariant(model)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Float[jax.Array, "*b h w classes"]:
        """Predicts the class probabilities of each pixel.

        Args:
          model: Flax module that returns a `SemanticOutput`.
          variables: Variables of the model.
          images: `[*b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[*b, 2]`, (height, width) of each image without the padding at its bottom and
            right, which a `canvas_invariant` model ignores; None if there is no padding.

        Returns:
          Probabilities `[*b, h, w, classes]`.

        Raises:
          ValueError: If the model returns anything else.
        """

        def whole(images):
            outputs = self.outputs(model, variables, images, sizes)
            if not isinstance(outputs, SemanticOutput):
                raise ValueError(
                    "model: expected one for semantic segmentation, such as unet, got one that "
                    f"returns a {type(outputs).__name__}; the panoptic task trains models with "
                    "queries on pixel labels"
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
        """Compares the predicted classes of a batch with its labels.

        Args:
          predictions: Probabilities `[b, h, w, classes]` from `predict`.
          record: Batch.

        Returns:
          Metric over the pixels of the batch that are not void.
        """
        if (labels := record.labels) is None:
            raise ValueError("data: expected pixel labels for semantic segmentation, got none")
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
        """Computes the metrics of semantic segmentation, in 0..1.

        Args:
          metric: Metric over all examples.
          classes: Classes of the data.

        Returns:
          `mean_iou`, `mean_boundary_iou`, `mean_dice`, `pixel_accuracy`, `frequency_weighted_iou`,
          and `iou/NAME` and `boundary_iou/NAME` of each class that occurs in labels or predictions.
        """
        pixels, boundaries = metric.confusion.compute(), metric.boundaries.compute()
        counts = metric.confusion.counts
        present = (counts.sum(0) + counts.sum(1)) > 0
        scores = {
            "mean_iou": pixels.mean_iou,
            "mean_boundary_iou": boundaries.mean_boundary_iou,
            "mean_dice": pixels.dice_score,
            "pixel_accuracy": pixels.pixel_accuracy,
            "frequency_weighted_iou": pixels.frequency_weighted_iou,
        }
        for i, name in enumerate(classes.names):
            if present[i]:
                scores[f"iou/{name}"] = pixels.class_iou[i]
                scores[f"boundary_iou/{name}"] = boundaries.class_boundary_iou[i]
        return {name: float(value) for name, value in scores.items()}

    def draw(self, record: Record, prediction: Array, classes: Classes) -> viz.Row:
        """Draws an image, its labels, the predicted labels and the errors.

        Args:
          record: One example of NumPy arrays, without batch axis.
          prediction: Probabilities `[h, w, classes]` predicted for it.
          classes: Classes of the data.

        Returns:
          Row of pictures.
        """
        image, labels = record.require("image"), record.require("labels")
        predicted = np.asarray(inference.semantic_labels(prediction))
        return viz.compare_labels(image, labels, predicted, classes, where=record.where)
