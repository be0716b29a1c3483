"""What `evaluate` and `predict` share: which model, and how it looks at pictures."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # `--help` need not wait for JAX
    from segjax.inference import Predictor


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and how it looks at a picture.

    Attributes:
      run: Folder of a training run, or the file that `segjax convert` made of it; with --model
        published weights: a file, or OWNER/NAME on the Hugging Face hub.
      checkpoint: Of a run's folder: the best one by its task's score, such as the mean IoU (where
        there is none, the last), the last, or that of a step, by its number.
      model: Name of the model that published weights are of; a run knows its own.
      model_options: Attributes of that model's module with their values, where they are not the
        published ones.
      task: What that model is asked for; without it, what it is usually for.
      canvases: The most sizes that images of many sizes are padded to, each of which compiles a
        program; 0 keeps each at its own size, rounded up to 32 pixels, as do models whose
        predictions would depend on it.
      max_value: What becomes white in images of 16 bits, such as 4095 where they hold 12; without
        it, the run's --max-value.
      window: Height and width in pixels of the windows that slide over larger pictures; without
        it the whole picture is seen at once. This and all that follow are for the semantic task.
      overlap: Share of a window's sides that it has in common with the next, 0 up to below 1.
      scales: The mean over the picture resized by each of these factors.
      flip: The mean over the picture and its mirror image.
    """

    run: pathlib.Path
    checkpoint: Literal["best", "last"] | int = "best"
    model: str | None = None
    model_options: dict[str, str] = dataclasses.field(default_factory=dict)
    task: Literal["semantic", "instance", "panoptic"] | None = None
    canvases: int = 3
    max_value: int | None = None
    window: tuple[int, int] | None = None
    overlap: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


def load(options: ModelOptions, *, score_threshold: float = 0.5) -> "Predictor":
    """The model that the options name.

    Args:
      options: of the command.
      score_threshold: the least score of an object that counts.

    Returns:
      Its predictor.

    Raises:
      OSError: where there is no such run, checkpoint or file.
      ValueError: for options that the model has no use for.
    """
    from segjax.data.images import check_max_value
    from segjax.inference import Predictor
    from segjax.training.build import read_options
    from segjax.training.processes import enable_compilation_cache

    enable_compilation_cache()
    shared = {name: getattr(options, name) for name in ("window", "overlap", "scales", "flip")}
    shared["score_threshold"] = score_threshold
    if options.model is not None:
        predictor = Predictor.from_weights(
            options.run,
            options.model,
            task=options.task,
            model_options=read_options(options.model_options),
            **shared,
        )
    else:
        for name in ("task", "model_options"):
            if getattr(options, name):
                raise ValueError(f"{name}: no effect without --model, for a run knows its own")
        predictor = Predictor.from_run(options.run, checkpoint=options.checkpoint, **shared)
    if options.max_value is not None:
        check_max_value(options.max_value)
        predictor.config = dataclasses.replace(predictor.config, max_value=options.max_value)
    return predictor
