"""What training, evaluation and prediction ask of a task."""

from typing import Any, Protocol, runtime_checkable

import jax
from flax import linen as nn

from segjax.data import Classes
from segjax.numerics import Average
from segjax.typing import Array, Record
from segjax.viz import Row


@runtime_checkable
class Metric(Protocol):
    """A pytree that counts what became of some examples."""

    def merge(self, other: Any) -> Any:
        """The metric of both sets of examples."""

    def all_reduce(self, axis_name: str) -> Any:
        """The metric of all devices' examples, inside `shard_map` or `pmap` over `axis_name`."""


@runtime_checkable
class Task(Protocol):
    """How a model is fed, trained, judged and asked."""

    @property
    def score(self) -> str:
        """The figure of `summary` that the best checkpoint has most of."""

    def apply(
        self, model: nn.Module, variables: dict, record: Record, key: jax.Array, **options: Any
    ) -> Any:
        """The model on a batch in training.

        Args:
          model: of the run.
          variables: of the model.
          record: the batch.
          key: random key, that of `losses`.
          **options: of `model.apply`: what is `mutable`, `rngs`.

        Returns:
          What `model.apply` returns.
        """

    def losses(self, outputs: Any, record: Record, key: jax.Array) -> dict[str, Average]:
        """The terms of the objective, each to be summed over devices before it is divided.

        Args:
          outputs: of the model in training, batch axis first.
          record: the batch.
          key: random key, the same on all devices; an example's own follows from `record.index`.

        Returns:
          The weighted averages by name; the objective is the sum of their values. No gradient
          flows through their weights.
        """

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> Any:
        """What the model finds in images.

        Args:
          model: of the run.
          variables: of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, (height, width) of the pictures at the top left of their canvases;
            None where they fill them.

        Returns:
          The predictions `[b, ...]`, on the canvas.
        """

    def canvas_invariant(self, model: nn.Module) -> bool:
        """Whether `predict` finds the same in a picture on every canvas that holds it.

        Args:
          model: of the run.

        Returns:
          Whether it does, given sizes, on canvases with sides that are multiples of 32 pixels.
        """

    def measure(self, predictions: Any, record: Record) -> Metric:
        """How good the predictions of a batch are; `merge` joins batches."""

    def summary(self, metric: Any, classes: Classes) -> dict[str, float]:
        """The figures of a metric; those of a class are called `KIND/NAME`."""

    def draw(self, record: Record, prediction: Any, classes: Classes) -> Row:
        """An example of NumPy arrays, without batch axis, beside what was predicted of it."""
