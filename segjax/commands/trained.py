"""What `evaluate` and `predict` share: a run's trained model, and how it looks at pictures."""

import dataclasses
import pathlib
from typing import Literal

import jax
import numpy as np
from flax import linen as nn

from segjax.data import as_float
from segjax.inference import average_over_views, sliding_window
from segjax.tasks import SemanticTask, Task
from segjax.training.build import make_model, make_task
from segjax.training.checkpoint import load_variables
from segjax.training.processes import enable_compilation_cache
from segjax.training.run_folder import RunInfo, read_config
from segjax.typing import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and how it looks at a picture.

    Attributes:
      run: folder of the training run.
      checkpoint: the best one by its task's score, such as the mean IoU (where there is none, the
        last), or the last.
      window: HEIGHT WIDTH in pixels of the windows that slide over larger pictures; None sees the
        whole picture at once. This and all that follows are for the semantic task.
      overlap: share of a window's sides that it has in common with the next, 0 up to below 1.
      scales: the mean over the picture resized by each of these factors.
      flip: the mean over the picture and its mirror image.
    """

    run: pathlib.Path
    checkpoint: Literal["best", "last"] = "best"
    window: tuple[int, int] | None = None
    overlap: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its variables.

    Attributes:
      info: what the run folder says.
      task: predicts as the options say.
      model: the Flax module.
      variables: NumPy arrays.
      step: of training that they are from.
    """

    info: RunInfo
    task: Task
    model: nn.Module
    variables: dict
    step: int


def load(options: ModelOptions) -> TrainedModel:
    """The trained model that the options name.

    Args:
      options: of the command.

    Returns:
      The model, ready to predict.

    Raises:
      FileNotFoundError: where there is no such run, or no checkpoint in it.
      ValueError: for options that the run's task has no use for.
    """
    enable_compilation_cache()
    info = read_config(options.run)
    model = make_model(info.config, len(info.classes))
    variables, step = load_variables(options.run / "checkpoints", options.checkpoint)
    task = make_task(info.config, info.classes)
    if isinstance(task, SemanticTask):
        task = _ViewingTask(**vars(task), options=options)
    elif options.window is not None or options.flip or options.scales != (1.0,):
        raise ValueError(
            f"--window, --scales and --flip are for the semantic task; {options.run} has learnt "
            f"the {info.config.task} one"
        )
    return TrainedModel(info, task, model, variables, step)


@dataclasses.dataclass(frozen=True)
class _ViewingTask(SemanticTask):
    """A task that predicts in windows, and from several views."""

    options: ModelOptions = dataclasses.field(kw_only=True)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> jax.Array:
        options = self.options

        def whole(images):
            return SemanticTask.predict(self, model, variables, images, sizes)

        def windowed(images):
            if options.window is None:
                return whole(images)
            height, width = np.minimum(options.window, images.shape[1:3]).tolist()
            return sliding_window(whole, images, window=(height, width), overlap=options.overlap)

        return average_over_views(
            windowed, as_float(images), scales=options.scales, flip=options.flip
        )
