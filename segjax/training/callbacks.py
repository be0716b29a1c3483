"""What a program may do beside a training."""

from collections.abc import Mapping

from segjax.data import Classes
from segjax.training.config import TrainConfig


class Callback:
    """What happens beside a training, such as another log; every method does nothing by itself.

    With several processes each of them calls the methods, with the same metrics.

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
        """Before the first step.

        Args:
          config: Configuration of the run.
          classes: Names and colours of what it learns.
          step: Number of steps taken before; above 0 where the run resumes.
        """

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """At each row of the log.

        Args:
          step: Number of steps taken.
          metrics: `loss`, each of its terms, `gradient_norm`, `learning_rate` and
            `examples_per_second`.
        """

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> bool | None:
        """After each evaluation.

        A run that resumes where an evaluation was due repeats it.

        Args:
          step: Number of steps taken.
          metrics: The task's summary, such as `mean_iou` and `iou/NAME`.

        Returns:
          True to end the training here.
        """

    def on_end(self, metrics: Mapping[str, float]) -> None:
        """After the last evaluation, when the report is written; not where SIGTERM came.

        Args:
          metrics: Those of the last evaluation.
        """

    def close(self) -> None:
        """At the end, however it comes: finished, stopped by SIGTERM, or by an error."""
