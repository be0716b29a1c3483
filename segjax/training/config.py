"""The configuration of a training run: one dataclass for each task, and its command line."""

import contextlib
import dataclasses
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from segjax.data import Augmentation
from segjax.data.synthetic.style import SceneStyle
from segjax.suggestions import unknown_name
from segjax.training.optimizer_config import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training run: the options that all tasks share.

    Attributes:
      run: Folder for checkpoints, logs and results.
      seed: Seed of all random numbers.
      data: Data set: synthetic, synthetic:outlines (the same scenes, but things differ by shape
        alone), a folder, folder:PATH, coco:PATH, coco_panoptic:PATH or tfds:NAME.
      train_split: Split to train on.
      eval_split: Split to evaluate on.
      void: Label of pixels to ignore. By default those that the data set declares void.
      max_value: Pixel value of white in 16-bit images, such as 4095 for 12-bit data. By default the
        upper 8 bits are used. Not for synthetic data.
      strict: Stop if the data set has objects that cannot be used, such as objects without a mask,
        instead of leaving them out. Only for coco:PATH.
      size: Height and width of the training crops in pixels, after resizing by --scale.
      scale: Factor by which images are resized before the model; predictions are resized back. Not
        for synthetic data.
      workers: Number of processes that read images; 0 reads them in threads of the main process.
      threads: Number of threads that read images.
      model: Name of the model; `segjax models` lists all.
      model_options: Options of the model as names and values, such as: norm group.
      weights: Pretrained weights to start from: a file, the folder of a run, or OWNER/NAME on the
        Hugging Face hub. By default the weights are initialised at random.
      dtype: Precision of the model's computations; parameters are always float32.
      steps: Number of training steps.
      batch_size: Batch size, over all devices and hosts.
      accumulate: Number of parts that each batch is split into to save memory; gradients are
        accumulated over them.
      average_decay: Decay of the exponential moving average of the weights, which is used for
        evaluation; 0 evaluates the weights themselves.
      patience: Number of evaluations without improvement after which training stops. By default it
        never stops early.
      save_every: Number of steps between checkpoints.
      keep_best: Number of best checkpoints to keep, in addition to the last one.
      keep_every: Also keep the checkpoint of every multiple of this number of steps.
      log_every: Number of steps between log entries.
      trackers: Where to log metrics in addition to metrics.jsonl; wandb and mlflow must be
        installed.
      eval_every: Number of steps between evaluations; there is always one at the end.
      eval_batch_size: Batch size for evaluation, over all devices and hosts.
      eval_canvases: Maximum number of sizes that images are padded to in evaluation; each size is
        compiled once. 0 pads images to multiples of 32 pixels only; so do models whose predictions
        would depend on the padding. The metrics do not depend on it.
      objective: Options of the objective. By default those of the model's paper.
      scenes: Difficulty of the synthetic scenes.
      optimizer: Optimizer and learning rate schedule.
      augmentation: Random changes of the training images, computed on the device.
      device: Kind of device to run on. By default an accelerator, if there is one.
      parallel: Parallelism over devices: data parallel with pmap, or jit over a device mesh.
      fsdp: Number of devices that each parameter is sharded over. Needs --parallel mesh.
      distributed: Run as one of several processes that are started with the same command, as on a
        TPU pod.
      coordinator: HOST:PORT of process 0, if JAX cannot detect it. Needs --distributed.
      num_processes: Number of processes, if JAX cannot detect it. Needs --distributed.
      process_id: Index of this process, if JAX cannot detect it. Needs --distributed.
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
    """Train a model for semantic segmentation. To resume, run the same command again."""

    task: ClassVar[str] = "semantic"

    run: pathlib.Path = pathlib.Path("runs/semantic")


@dataclasses.dataclass(frozen=True)
class InstanceConfig(TrainConfig):
    """Train a model for instance segmentation. To resume, run the same command again.

    Attributes:
      max_objects: Maximum number of objects per training image; the largest are used.
      nms_threshold: Box IoU above which non-maximum suppression removes the object with the lower
        score. By default there is no suppression.
    """

    task: ClassVar[str] = "instance"

    run: pathlib.Path = pathlib.Path("runs/instance")
    model: str = "mask2former_tiny"
    max_objects: int = 100
    nms_threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class PanopticConfig(TrainConfig):
    """Train a model for panoptic segmentation. To resume, run the same command again.

    Attributes:
      max_objects: Maximum number of segments per training image; the largest are used.
      score_threshold: Minimum class probability of a predicted segment; use a lower one for models
        that were trained briefly.
      overlap_threshold: Minimum share of its mask that a predicted segment keeps after overlaps are
        resolved.
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

# The groups of options in `--help`, by the first option of each. Nested dataclasses are groups too.
GROUPS = {
    "run": "run",
    "data": "data",
    "model": "model",
    "steps": "training",
    "eval_every": "evaluation",
    "device": "devices and hosts",
    "max_objects": "objects",
}

# Options that may change when a run resumes: they say where and how it runs, not what it computes.
MAY_CHANGE_ON_RESUME = {
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
    """Converts a dataclass to a dictionary for JSON; a configuration also gets its `task`."""

    def plain(value):
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, pathlib.Path):
            return str(value)
        return list(value) if isinstance(value, tuple) else value

    task = {"task": config.task} if isinstance(config, TrainConfig) else {}
    return task | plain(config)


def to_flat_dict(config: Any) -> dict[str, Any]:
    """Converts a dataclass as `to_dict` does, to a flat dictionary: {"optimizer.warmup": 10}."""

    def flat(values, prefix):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    return dict(flat(to_dict(config), ""))


def from_dict(default: Any, values: Mapping[str, Any], *, path: str = "") -> Any:
    """Creates a dataclass from the content of a file; the inverse of `to_dict`.

    Args:
      default: Instance of the dataclass, with values for everything that is not in `values`.
      values: Values by name: nested dictionaries, or flat with names such as "optimizer.warmup".
        Hyphens are read as underscores.
      path: Prefix of the names in error messages.

    Returns:
      Instance of the same dataclass.

    Raises:
      ValueError: If a name is unknown or a value has the wrong type.

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
            continue  # keeps the default
        elif isinstance(value, Mapping):
            nested.setdefault(name, {}).update(value)
        else:
            raise ValueError(f"{path}{name}: expected options by name, got {value!r}")
    for name, value in nested.items():
        if dataclasses.is_dataclass(inner := getattr(default, name)):
            nested[name] = from_dict(inner, value, path=f"{path}{name}.")
    return dataclasses.replace(default, **nested)


def read_value(hint: Any, value: Any, name: str) -> Any:
    """Converts a value from JSON or YAML to the type of an option.

    Args:
      hint: Type annotation of the option.
      value: Value from the file.
      name: Name of the option, for error messages.

    Returns:
      The value, of type `hint`.

    Raises:
      ValueError: If the value has another type.

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
            # Options of a model are texts, as on the command line.
            return {k: str(tuple(v) if isinstance(v, list) else v) for k, v in value.items()}
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = options[:1] * len(value) if options[-1] is ... else options
        if len(kinds) == len(value):
            return tuple(read_value(k, v, name) for k, v in zip(kinds, value, strict=True))
    elif hint is float and not isinstance(value, bool):
        expected = "a number"
        # YAML reads 1e-3 as a text.
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value)
    elif hint is pathlib.Path and isinstance(value, str):
        return pathlib.Path(value)
    elif type(value) is hint:
        return value
    raise ValueError(f"{name}: expected {expected}, got {value!r}")
