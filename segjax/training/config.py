"""The configuration of a training run: for each task a dataclass, also its command line."""

import contextlib
import dataclasses
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from segjax.data import Augmentation
from segjax.data.synthetic.style import SceneStyle
from segjax.naming import unknown_name
from segjax.training.optimizer_config import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What the trainings of all tasks have in common.

    Attributes:
      run: Folder for the checkpoints, the logs and the configuration.
      seed: Seed of everything random.
      data: Where the examples come from: synthetic, synthetic:outlines (the same scenes, in which
        shapes alone tell the classes of things apart), a folder, folder:PATH, coco:PATH,
        coco_panoptic:PATH or tfds:NAME.
      train_split: Split to train on.
      eval_split: Split to evaluate on.
      void: Label to ignore; without it, what the data itself declares void is ignored.
      max_value: What becomes white in images of 16 bits, such as 4095 where they hold 12; without
        it the upper 8 bits are kept (not for synthetic data).
      strict: Refuse a data set of which objects would be left out, such as those without a mask
        (coco:PATH).
      size: Height and width of the training crops in pixels, after --scale.
      scale: Images are resized by this factor before the model, predictions back after it (not for
        synthetic data).
      workers: Processes that read images; 0 reads in threads of the main process.
      threads: Threads that read images.
      model: Name of the model; `segjax models` lists them.
      model_options: Attributes of the model's module with their values, such as: norm group.
      weights: Published weights to start from, a file or OWNER/NAME on the Hugging Face hub.
        Without them the weights are drawn at random.
      dtype: Precision of the model's computation; parameters stay float32.
      steps: Number of training steps.
      batch_size: Examples in a step, over all devices and hosts.
      accumulate: Number of parts that a batch is split into, one after the other, to save memory.
      average_decay: Decay of the moving average of the weights, which is what is evaluated;
        0 evaluates the weights themselves.
      patience: Evaluations without a better score after which the training ends; without it all
        steps are taken.
      save_every: Steps between checkpoints.
      keep_best: Number of checkpoints with the best scores that stay, beside the last.
      keep_every: Checkpoints of every multiple of so many steps stay too.
      log_every: Steps between rows of the log.
      trackers: Where metrics go beside metrics.jsonl: wandb and mlflow are extras to install.
      eval_every: Steps between evaluations; there is always one at the end.
      eval_batch_size: Examples in an evaluation step, over all devices and hosts.
      eval_canvases: The most sizes that images of many sizes are padded to, each of which compiles
        a program. No prediction depends on it: models that would see more of a picture than at its
        own size, rounded up to 32 pixels, keep that, as 0 does for all.
      objective: Weights of the objective's terms; by default those of the model's paper.
      scenes: How difficult the synthetic scenes are.
      optimizer: The optimizer and its schedule.
      augmentation: Random changes of the training images, made on the device.
      device: Kind of device to run on; without it, what JAX finds first.
      parallel: Data parallelism by pmap, or by jit over a mesh of devices.
      fsdp: Number of devices that each parameter is sharded over (with --parallel mesh).
      distributed: This process is one of several that run the same command, as on a TPU pod.
      coordinator: HOST:PORT of process 0, where JAX cannot find it (with --distributed).
      num_processes: Number of processes, where JAX cannot find it (with --distributed).
      process_id: Number of this process, where JAX cannot find it (with --distributed).
    """

    task: ClassVar[str]

    run: pathlib.Path = pathlib.Path("runs/training")
    seed: int = 0
    data: str = "synthetic"
    train_split: str = "train"
    eval_split: str = "val"
    void: int | None = None
    max_value: int | None = None
    strict: bool = False
    size: tuple[int, int] = (128, 128)
    scale: float = 1.0
    workers: int = 0
    threads: int = 4
    model: str = "unet_patch2"
    model_options: dict[str, str] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1
    average_decay: float = 0.99
    patience: int | None = None
    save_every: int = 500
    keep_best: int = 1
    keep_every: int | None = None
    log_every: int = 10
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    eval_every: int = 500
    eval_batch_size: int = 8
    eval_canvases: int = 3
    objective: Any = None
    optimizer: OptimizerConfig = OptimizerConfig()
    augmentation: Augmentation = Augmentation(zoom=(0.75, 1.5))
    scenes: SceneStyle = SceneStyle()
    device: Literal["cpu", "gpu", "tpu"] | None = None
    parallel: Literal["pmap", "mesh"] = "pmap"
    fsdp: int = 1
    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


@dataclasses.dataclass(frozen=True)
class SemanticConfig(TrainConfig):
    """Trains a model that gives each pixel a class. The same command resumes a stopped run."""

    task: ClassVar[str] = "semantic"

    run: pathlib.Path = pathlib.Path("runs/semantic")


@dataclasses.dataclass(frozen=True)
class InstanceConfig(TrainConfig):
    """Trains a model that finds objects. The same command resumes a stopped run.

    Attributes:
      max_objects: Number of objects of an image that are learnt, the largest first.
      nms_threshold: An object is suppressed by a surer one that it overlaps by more than this IoU;
        without it all are kept.
    """

    task: ClassVar[str] = "instance"

    run: pathlib.Path = pathlib.Path("runs/instance")
    model: str = "mask2former_tiny"
    max_objects: int = 100
    nms_threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class PanopticConfig(TrainConfig):
    """Trains a model that finds things and stuff. The same command resumes a stopped run.

    Attributes:
      max_objects: Number of segments of an image that are learnt, the largest first.
      score_threshold: Class probability that a segment must exceed in evaluation and prediction;
        models trained briefly need a lower one.
      overlap_threshold: Share of its mask that a segment must win.
    """

    task: ClassVar[str] = "panoptic"

    run: pathlib.Path = pathlib.Path("runs/panoptic")
    model: str = "mask2former_tiny"
    max_objects: int = 100
    score_threshold: float = 0.8
    overlap_threshold: float = 0.8


CONFIGS: dict[str, type[TrainConfig]] = {
    config.task: config for config in (SemanticConfig, InstanceConfig, PanopticConfig)
}

# The groups of options in `--help`, by the first of each. The dataclasses are groups themselves.
GROUPS = {
    "run": "run",
    "data": "data",
    "model": "model",
    "steps": "training",
    "eval_every": "evaluation",
    "device": "devices and hosts",
    "max_objects": "objects",
}

# What may differ when a run is resumed: where and how it runs, not what it computes.
RESUMABLE = {
    "run",
    "device",
    "parallel",
    "fsdp",
    "distributed",
    "coordinator",
    "num_processes",
    "process_id",
    "eval_batch_size",
    "eval_canvases",
    "save_every",
    "keep_best",
    "keep_every",
    "log_every",
    "trackers",
    "workers",
    "threads",
}


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as what JSON can hold; a configuration with the name of its task."""

    def plain(value):
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, pathlib.Path):
            return str(value)
        return list(value) if isinstance(value, tuple) else value

    task = {"task": config.task} if isinstance(config, TrainConfig) else {}
    return task | plain(config)


def to_flat_dict(config: Any) -> dict[str, Any]:
    """As `to_dict`, by names such as "optimizer.warmup"."""

    def flat(values, prefix):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    return dict(flat(to_dict(config), ""))


def from_dict(default: Any, values: Mapping[str, Any], *, path: str = "") -> Any:
    """The dataclass of what a file holds, such as what `to_dict` gave.

    Args:
      default: An instance of the dataclass, for what `values` leaves out.
      values: Values by name, nested as the dataclasses are, or flat as in "optimizer.warmup".
        Hyphens count as underscores.
      path: Where `values` stand in the whole, for messages.

    Returns:
      An instance of the same dataclass.

    Raises:
      ValueError: for an unknown name, with those that come near, or a value of another type.

    Example:
      >>> from_dict(OptimizerConfig(), {"learning-rate": 1, "warmup": 10}).learning_rate
      1.0
    """
    hints = typing.get_type_hints(type(default))
    hints = {field.name: hints[field.name] for field in dataclasses.fields(default)}
    nested: dict[str, Any] = {}
    for key, value in values.items():
        name, _, rest = str(key).replace("-", "_").partition(".")
        if name not in hints:
            raise ValueError(unknown_name("option", path + name, [path + hint for hint in hints]))
        if not dataclasses.is_dataclass(getattr(default, name)):
            nested[name] = read_value(hints[name], value, path + str(key))
        elif rest:
            nested.setdefault(name, {})[rest] = value
        elif value is None:
            continue  # left open
        elif isinstance(value, Mapping):
            nested.setdefault(name, {}).update(value)
        else:
            raise ValueError(f"{path}{name}: expected options by name, got {value!r}")
    for name, value in nested.items():
        if dataclasses.is_dataclass(inner := getattr(default, name)):
            nested[name] = from_dict(inner, value, path=f"{path}{name}.")
    return dataclasses.replace(default, **nested)


def read_value(hint: Any, value: Any, name: str) -> Any:
    """A value of JSON or YAML as the type `hint` that a field of a configuration has.

    Args:
      hint: the type.
      value: from the file.
      name: of the option, for the message.

    Returns:
      The value.

    Raises:
      ValueError: where it is of another type.

    Example:
      >>> read_value(tuple[int, int], [64, 96], "size")
      (64, 96)
    """
    expected = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
    options, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is Literal:
        expected = " or ".join(map(str, options))
        if value in options:
            return value
    elif origin in (typing.Union, types.UnionType):  # X | None
        if value is None:
            return None
        return read_value(options[0], value, name)
    elif origin is dict:
        expected = "options by name"
        if isinstance(value, Mapping):
            # Of a model's module; on the command line each is a literal.
            return {k: str(tuple(v) if isinstance(v, list) else v) for k, v in value.items()}
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = options[:1] * len(value) if options[-1] is ... else options
        if len(kinds) == len(value):
            return tuple(read_value(k, v, name) for k, v in zip(kinds, value, strict=True))
    elif hint is float and not isinstance(value, bool):
        expected = "a number"
        # YAML takes 1e-3 for a text.
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value)
    elif hint is pathlib.Path and isinstance(value, str):
        return pathlib.Path(value)
    elif type(value) is hint:
        return value
    raise ValueError(f"{name}: expected {expected}, got {value!r}")
