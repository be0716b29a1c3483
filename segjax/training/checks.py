"""Checks of a configuration, made before any data is read or anything is compiled."""

import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np

from segjax.data import Classes, Source
from segjax.data.folder import find_split
from segjax.data.spec import full_spec
from segjax.pretrained.files import TORCH_SUFFIXES
from segjax.registry import default_objective
from segjax.suggestions import unknown_name
from segjax.training.build import make_model
from segjax.training.checkpoint import has_checkpoint
from segjax.training.config import CONFIGS, TrainConfig
from segjax.training.run_folder import check_run
from segjax.training.trackers import check_trackers

# The lowest and highest value of each option.
_POSITIVE, _NOT_NEGATIVE, _SHARE = (1, math.inf), (0, math.inf), (0, 1)
_RANGES = {
    "size": _POSITIVE,
    "steps": _POSITIVE,
    "batch_size": _POSITIVE,
    "accumulate": _POSITIVE,
    "eval_every": _POSITIVE,
    "eval_batch_size": _POSITIVE,
    "eval_canvases": _NOT_NEGATIVE,
    "patience": _POSITIVE,
    "save_every": _POSITIVE,
    "keep_best": _POSITIVE,
    "keep_every": _POSITIVE,
    "log_every": _POSITIVE,
    "threads": _POSITIVE,
    "workers": _NOT_NEGATIVE,
    "fsdp": _POSITIVE,
    "void": (0, 65535),
    "max_value": (1, 65535),
    "average_decay": _SHARE,
    "nms_threshold": _SHARE,
    "score_threshold": _SHARE,
    "overlap_threshold": _SHARE,
    "optimizer.warmup": _NOT_NEGATIVE,
    "optimizer.backbone_warmup": _NOT_NEGATIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _SHARE,
    "optimizer.drops": _SHARE,
    "optimizer.clip": _NOT_NEGATIVE,
    "optimizer.backbone": _NOT_NEGATIVE,
    "optimizer.auxiliary": _NOT_NEGATIVE,
    "optimizer.layer_decay": _SHARE,
    "max_objects": _POSITIVE,
    "objective.label_smoothing": _SHARE,
    "objective.no_object": _SHARE,
    "objective.points": _POSITIVE,
    "objective.oversample": _POSITIVE,
    "objective.importance": _SHARE,
    "objective.matches": _POSITIVE,
    "augmentation.rotation": (0, 180),
    "augmentation.brightness": _SHARE,
    "augmentation.contrast": _SHARE,
    "augmentation.saturation": _SHARE,
    "augmentation.hue": (0, 0.5),
    "augmentation.blur": _NOT_NEGATIVE,
    "augmentation.cutout": _SHARE,
    "augmentation.copy_paste": _SHARE,
}
_ABOVE_ZERO = ("scale", "optimizer.learning_rate", "optimizer.power", "augmentation.zoom")
_SYNTHETIC_SPLITS = ("train", "val", "test")
_SMALL = 32  # pixels: every model with its published options accepts images of at least this size


def check(config: TrainConfig) -> None:
    """Checks a configuration without reading data or using a device.

    Args:
      config: Configuration of a run that is about to start, from `resolve`.

    Raises:
      ValueError: If an option is out of range, contradicts another or has no effect in this run, or
        if the run folder holds another run.
      FileNotFoundError: If the weights or the data do not exist.
      ImportError: If the package of a tracker is not installed.
    """
    check_ranges(config)
    _check_effects(config)
    check_model(config)
    for name in ("optimizer.warmup", "optimizer.backbone_warmup"):
        if 0 < (_value(config, name) or 0) >= config.steps:
            raise ValueError(
                f"{name}: expected fewer than the {config.steps} steps of the run, "
                f"got {_value(config, name)}"
            )
    least, largest = config.augmentation.zoom
    if least > largest:
        raise ValueError(
            f"augmentation.zoom: expected the smaller scale first, got {least} {largest}"
        )
    _check_places(config)
    check_trackers(config)
    check_run(config)


def check_devices(config: TrainConfig) -> None:
    """Checks that batches can be divided among the devices. This is the first use of a device.

    Args:
      config: Configuration of a run that is about to start.

    Raises:
      ValueError: If a batch size is not a multiple of the number of devices.
    """
    devices = jax.device_count()
    parts = devices * config.accumulate
    for name, count in (("batch_size", parts), ("eval_batch_size", devices)):
        size = getattr(config, name)
        if size % count:
            times = f" x {config.accumulate} parts" if count != devices else ""
            raise ValueError(
                f"{name}: expected a multiple of {count} ({devices} device(s){times}), got {size}"
            )
    if config.augmentation.copy_paste and config.batch_size // parts % 2:
        raise ValueError(
            f"batch_size: expected an even number of examples for each of {parts} parts with "
            f"augmentation.copy_paste, got {config.batch_size}"
        )
    if config.parallel == "mesh" and devices % config.fsdp:
        raise ValueError(f"fsdp: expected a divisor of the {devices} devices, got {config.fsdp}")


def check_sources(config: TrainConfig, source: Source, eval_source: Source) -> None:
    """Checks that both splits have the same classes, and that class weights match them.

    Args:
      config: Configuration of a run that is about to start.
      source: Split to train on.
      eval_source: Split to evaluate on.

    Raises:
      ValueError: If the classes or the number of class weights differ.
    """
    if source.classes != eval_source.classes:
        raise ValueError(
            f"eval_split: expected the classes of {config.train_split} "
            f"({_listed(source.classes)}), got {_listed(eval_source.classes)}"
        )
    weights = getattr(config.objective, "class_weights", None)
    if weights and len(weights) != len(source.classes):
        raise ValueError(
            f"objective.class_weights: expected {len(source.classes)} weights, one for each of "
            f"{', '.join(source.classes.names)}, got {len(weights)}"
        )


def _listed(classes: Classes) -> str:
    return ", ".join(f"{k} {name}" for k, name in zip(classes.ids, classes.names, strict=True))


def check_ranges(config: TrainConfig) -> None:
    """Checks that all numbers are in range.

    Args:
      config: Configuration of a run.

    Raises:
      ValueError: If a number is out of range. The message names the option.
    """
    for name, (least, most) in _RANGES.items():
        for value in _numbers(config, name):
            if not least <= value <= most:
                bounds = f"at least {least}" if most == math.inf else f"{least} to {most}"
                raise ValueError(f"{name}: expected {bounds}, got {value}")
    for name, value in vars(config.objective).items() if config.objective else ():
        if isinstance(value, float) and not 0 <= value < math.inf:
            raise ValueError(f"objective.{name}: expected at least 0, got {value}")
    for name in _ABOVE_ZERO:
        for value in _numbers(config, name):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {value}")


def _check_effects(config: TrainConfig) -> None:
    """Refuses options that differ from their defaults but do nothing in this run."""
    synthetic = full_spec(config.data).startswith("synthetic")
    effects = {
        "fsdp": (config.parallel == "mesh", "without parallel mesh"),
        "coordinator": (config.distributed, "without distributed"),
        "num_processes": (config.distributed, "without distributed"),
        "process_id": (config.distributed, "without distributed"),
        "scale": (not synthetic, f"for {config.data}"),
        "max_value": (not synthetic, f"for {config.data}"),
        "strict": (full_spec(config.data).startswith("coco:"), f"for {config.data}"),
        "scenes": (config.data == "synthetic", f"for {config.data}"),
        "void": (
            full_spec(config.data).startswith(("folder:", "tfds:")),
            f"for {config.data}, which declares its void pixels",
        ),
    }
    for name, (works, where) in effects.items():
        if not works:
            for option in _given(config, name):
                raise ValueError(
                    f"{option}: expected {_value(type(config)(), option)}, got "
                    f"{_value(config, option)}; it has no effect {where}"
                )


def check_model(config: TrainConfig) -> None:
    """Checks that the model exists, suits the task and the objective, and accepts its images.

    Args:
      config: Configuration of a run.

    Raises:
      ValueError: If the model or one of its options is unknown, if the model is for another task
        or objective, or if it cannot process images of `size`.
    """
    model = make_model(config, 1)  # the number of classes does not matter here
    own, given = default_objective(config.model), config.objective
    boxes_alone = getattr(model, "mask_head", True) is None
    if config.task not in own.tasks or (config.task == "panoptic" and boxes_alone):
        suited = CONFIGS[config.task]().model
        tasks = "instance" if boxes_alone else " and ".join(own.tasks)
        raise ValueError(
            f"model: expected one for {config.task} segmentation, such as {suited}, got "
            f"{config.model}, which is for {tasks} segmentation"
        )
    if given is not None and type(given) is not type(own):
        raise ValueError(
            f"objective: expected {type(own).__name__} for {config.model}, got "
            f"{type(given).__name__}"
        )
    if config.model_options or min(config.size) < _SMALL:
        _trace(config)


def _trace(config: TrainConfig) -> None:
    """Raises a ValueError if the model, with its options, cannot process images of `size`."""
    model = make_model(config, 1)
    images = jax.ShapeDtypeStruct((1, *config.size, 3), np.float32)
    try:
        jax.eval_shape(model.init, jax.random.key(0), images)
    except Exception as error:
        options = "".join(f" {k} {v}" for k, v in config.model_options.items())
        given = f"size {config.size}" + (f" and model_options{options}" if options else "")
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"model: expected a size and options that {config.model} accepts, got {given} "
            f"({reason})"
        ) from error


def _check_places(config: TrainConfig) -> None:
    """Checks that the weights and the data exist."""
    weights = config.weights
    resumes = has_checkpoint(config.run / "checkpoints")  # then the weights are not read
    if weights is not None and not resumes and not pathlib.Path(weights).exists():
        is_file = pathlib.Path(weights).suffix in (".safetensors", *TORCH_SUFFIXES)
        if is_file or weights.count("/") != 1 or weights.startswith((".", "/", "~")):
            raise FileNotFoundError(f"{weights}: No such file or directory")
    kind, _, path = full_spec(config.data).partition(":")
    splits = {"train_split": config.train_split, "eval_split": config.eval_split}
    for name, split in splits.items():
        if kind == "synthetic" and split not in _SYNTHETIC_SPLITS:
            raise ValueError(f"{name}: {unknown_name('split', split, _SYNTHETIC_SPLITS)}")
        if kind == "folder":
            find_split(pathlib.Path(path).expanduser(), split)


def _numbers(config: TrainConfig, name: str) -> tuple:
    value = _value(config, name)
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _value(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part, None)
    return config


def _given(config: TrainConfig, name: str) -> list[str]:
    """The options under a name that differ from their defaults."""
    value, default = _value(config, name), _value(type(config)(), name)
    if not dataclasses.is_dataclass(value):
        return [name] if value != default else []
    return [
        f"{name}.{field.name}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != getattr(default, field.name)
    ]
