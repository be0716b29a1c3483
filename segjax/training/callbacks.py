"""Callbacks: code that runs at certain moments of a training, for example to log metrics."""

from collections.abc import Mapping

from segjax.data import Classes
from segjax.training.config import TrainConfig


class Callback:
    """Base class of callbacks. Override the methods that you need; by default they do nothing.

    With several processes, each of them calls the methods with the same metrics.

    Example:
      >>> class StopAt(Callback):
      ...     def __init__(self, target):
      ...         self.target = target
      ...
      ...     def on_evaluation(self, step, metrics):
      ...         return metrics["mean_iou"] >= self.target
      >>> StopAt(0.8).on_evaluation(100, {"mean_iou": 0.9})
      True
    """

    def on_start(self, config: TrainConfig, classes: Classes, step: int) -> None:
        """Called before the first step.

        Args:
          config: Configuration of the run.
          classes: Classes of the data.
          step: Number of steps already taken; above 0 if the run resumes.
        """

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called every `log_every` steps.

        Args:
          step: Number of steps taken.
          metrics: `loss`, each of its terms, `gradient_norm`, `learning_rate` and
            `examples_per_second`.
        """

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> bool | None:
        """Called after each evaluation.

        If a run was stopped at a step with an evaluation, it repeats that evaluation when it
        resumes.

        Args:
          step: Number of steps taken.
          metrics: Metrics of the evaluation, such as `mean_iou` and `iou/NAME`.

        Returns:
          True to end the training after this step.
        """

    def on_end(self, metrics: Mapping[str, float]) -> None:
        """Called when the training is complete, but not if SIGTERM stopped it.

        Args:
          metrics: Metrics of the last evaluation.
        """

    def close(self) -> None:
        """Called at the very end, also after SIGTERM or an error."""
