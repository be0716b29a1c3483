"""Options of `evaluate` and `predict` in common: the model, sliding windows and augmentation."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, Literal

from segjax.commands.embed import TextOptions, embed, model_settings

if TYPE_CHECKING:  # `--help` need not wait for JAX
    from segjax.inference import Predictor


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions(TextOptions):
    """The model, and its sliding windows and test-time augmentation.

    Attributes:
      run: Folder of a training run, or the file that `segjax convert` made of it; with --model
        published weights: a file, or OWNER/NAME on the Hugging Face hub.
      checkpoint: Checkpoint of a run: the best by the task's score, such as the mean IoU (if there
        is none, the last), the last, or that of a step, by its number.
      model: Name of the model of published weights; a run has its own.
      model_options: Attributes of that model's module with their values, where they are not the
        published ones.
      task: Task of that model; by default its usual one.
      canvases: Largest number of sizes that images are padded to, each of which compiles a program;
        0 keeps each at its own size, rounded up to 32 pixels, as do models whose predictions depend
        on it.
      max_value: Value that becomes white in 16-bit images, such as 4095 for 12-bit content; by
        default the run's --max-value.
      window: Height and width in pixels of sliding windows; by default the whole picture is
        predicted at once (semantic task).
      overlap: Overlap of neighbouring windows as a share of their sides, at least 0 and below 1
        (semantic task).
      scales: Average over the picture resized by each of these factors (semantic task).
      flip: Average over the picture and its mirror image (semantic task).
      text: Names of classes, each with its synonyms after commas: with --model and the weights of a
        CLIP pixels get the class whose name is most similar, without any training. --vocabulary,
        --templates, --gelu and all that follows are for this.
      text_file: The same from a file: NAME.npz that `segjax embed` wrote, or a text with one line a
        class.
      dense: How the last block of the CLIP is changed so that patches stay local.
      background: Name of the class that pixels get of which no class is sure.
      threshold: Largest probability below which a pixel is of the background.
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
    text: tuple[str, ...] = ()
    text_file: pathlib.Path | None = None
    dense: Literal["clip", "maskclip", "sclip", "clearclip", "naclip"] = "sclip"
    background: str | None = None
    threshold: float = 0.1


def load(options: ModelOptions, *, score_threshold: float = 0.5) -> "Predictor":
    """Loads the model that the options name.

    Args:
      options: options of the command.
      score_threshold: least score of the objects that are kept.

    Returns:
      The predictor of the model.

    Raises:
      OSError: if there is no such run, checkpoint or file.
      ValueError: if an option has no effect on the model.
    """
    from segjax.data.images import check_max_value
    from segjax.inference import Predictor
    from segjax.training.build import read_options
    from segjax.training.processes import enable_compilation_cache

    enable_compilation_cache()
    shared = {name: getattr(options, name) for name in ("window", "overlap", "scales", "flip")}
    by_text = bool(options.text) or options.text_file is not None
    _check_effects(options, by_text)
    if by_text:
        predictor = _by_text(options, **shared)
    elif options.model is not None:
        predictor = Predictor.from_weights(
            options.run,
            options.model,
            task=options.task,
            model_options=read_options(options.model_options),
            score_threshold=score_threshold,
            **shared,
        )
    else:
        predictor = Predictor.from_run(
            options.run,
            checkpoint=options.checkpoint,
            score_threshold=score_threshold,
            **shared,
        )
    if options.max_value is not None:
        check_max_value(options.max_value)
        predictor.config = dataclasses.replace(predictor.config, max_value=options.max_value)
    return predictor


def _check_effects(options: ModelOptions, by_text: bool) -> None:
    """Finds options that do nothing."""
    of_text = ("vocabulary", "templates", "gelu", "dense", "background", "threshold")
    idle: dict[str, str] = {}
    if not by_text:
        idle |= dict.fromkeys(of_text, "without --text or --text-file")
    else:
        idle |= dict.fromkeys(("task", "checkpoint", "model_options"), "with --text or --text-file")
        if options.background is None:
            idle["threshold"] = "without --background"
        if options.text_file is not None and options.text_file.suffix == ".npz":
            idle |= dict.fromkeys(("vocabulary", "templates"), f"with {options.text_file}")
    if options.model is None:
        idle |= dict.fromkeys(("task", "model_options"), "without --model, as a run has its own")
    defaults = {field.name: field for field in dataclasses.fields(options)}
    for name, where in idle.items():
        field, value = defaults[name], getattr(options, name)
        default = {} if name == "model_options" else field.default
        if value != default:
            raise ValueError(
                f"{name}: expected {default or 'none'}, got {value}; no effect {where}"
            )


def _by_text(options: ModelOptions, **views: Any) -> "Predictor":
    """A CLIP that labels pixels by the texts of the options."""
    from segjax.inference import Predictor
    from segjax.text import ClassNames, TextEmbeddings

    file = options.text_file
    if options.model is None:
        raise ValueError("model: expected the name of a CLIP with --text, got none")
    if options.text and file is not None:
        raise ValueError(f"text_file: expected none with --text, got {file}")
    if file is not None and file.suffix == ".npz":
        embeddings = TextEmbeddings.load(file)
    else:
        classes = ClassNames.from_file(file) if file else ClassNames.parse(options.text)
        embeddings = embed(classes, str(options.run), options.model, options)
    names = [synonyms[0] for synonyms in embeddings.classes.names]
    if options.background is not None and options.background not in names:
        raise ValueError(
            f"background: expected one of {', '.join(names)}, got {options.background!r}"
        )
    return Predictor.from_text(
        options.run,
        options.model,
        embeddings,
        method=options.dense,
        background=None if options.background is None else names.index(options.background),
        threshold=options.threshold,
        model_options=model_settings(options),
        **views,
    )
