"""The interface of tasks and of their metrics."""

from typing import Any, Protocol, runtime_checkable

import jax
from flax import linen as nn

from segjax.data import Classes
from segjax.numerics import Average
from segjax.typing import Array, Record
from segjax.viz import Row


@runtime_checkable
class Metric(Protocol):
    """A pytree of sums over examples, from which metrics such as the mean IoU are computed."""

    def merge(self, other: Any) -> Any:
        """The metric over the examples of both."""

    def all_reduce(self, axis_name: str) -> Any:
        """The metric over the examples of all devices, inside `shard_map` or `pmap`."""


@runtime_checkable
class Task(Protocol):
    """Inputs, losses, predictions and metrics of a model."""

    @property
    def score(self) -> str:
        """The name of the metric in `summary` by which the best checkpoint is chosen."""

    def apply(
        self, model: nn.Module, variables: dict, record: Record, key: jax.Array, **options: Any
    ) -> Any:
        """Applies the model to a batch in training.

        Args:
          model: Flax module.
          variables: Variables of the model.
          record: Batch.
          key: Random key, the same as that of `losses`.
          **options: Options of `model.apply`, such as `mutable` and `rngs`.

        Returns:
          The result of `model.apply`.
        """

    def losses(self, outputs: Any, record: Record, key: jax.Array) -> dict[str, Average]:
        """Computes the weighted loss terms.

        Args:
          outputs: Outputs of the model in training, batch axis first.
          record: Batch.
          key: Random key, the same on all devices. The key of an example is derived from it and the
            example's `index`.

        Returns:
          Averages by name. The loss is the sum of their values. Over devices, totals and weights
          are summed before they are divided. The weights have no gradient.
        """

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Any:
        """Predicts the labels, objects or segments of images.

        Args:
          model: Flax module.
          variables: Variables of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, (height, width) of each image without the padding at its bottom and
            right; None if there is no padding.

        Returns:
          Predictions `[b, ...]`, including the padding.
        """

    def canvas_invariant(self, model: nn.Module) -> bool:
        """Whether the predictions for an image do not depend on its padding.

        Args:
          model: Flax module.

        Returns:
          Whether `predict`, given `sizes`, returns the same for every padded height and width that
          are multiples of 32 pixels.
        """

    def measure(self, predictions: Any, record: Record) -> Metric:
        """Compares the predictions for a batch with its labels.

        Args:
          predictions: Predictions from `predict`.
          record: Batch.

        Returns:
          Metric over the examples of the batch.
        """

    def summary(self, metric: Any, classes: Classes) -> dict[str, float]:
        """Computes the metrics by name, such as `mean_iou`, and `iou/NAME` of each class.

        Args:
          metric: Metric over all examples.
          classes: Classes of the data.

        Returns:
          Numbers by name.
        """

    def draw(self, record: Record, prediction: Any, classes: Classes) -> Row:
        """Draws an example beside its prediction.

        Args:
          record: One example of NumPy arrays, without batch axis.
          prediction: Prediction for it, without batch axis.
          classes: Classes of the data.

        Returns:
          Row of pictures.
        """
