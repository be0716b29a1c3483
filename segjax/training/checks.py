"""What is wrong with a configuration, said before any data is read or anything compiled."""

import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np

from segjax.data import Classes, Source
from segjax.data.folder import find_split
from segjax.data.spec import full_spec
from segjax.naming import unknown_name
from segjax.pretrained.files import TORCH_SUFFIXES
from segjax.registry import default_objective
from segjax.training.build import make_model
from segjax.training.checkpoint import has_checkpoint
from segjax.training.config import CONFIGS, TrainConfig
from segjax.training.run_folder import check_run
from segjax.training.trackers import check_trackers

# Least and largest value of each option; what is open above has no bound.
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
_SMALL = 32  # pixels: every model with its published options takes pictures of at least this size


def check(config: TrainConfig) -> None:
    """Finds what is wrong with a configuration, without any data, device or compiled program.

    An option counts as given where it is not its default.

    Args:
      config: Configuration of a run that is about to start, resolved.

    Raises:
      ValueError: for an option that is out of range, contradicts another or has no effect, or a run
        folder that holds another run.
      FileNotFoundError: where the weights or the data are not there.
      ImportError: where a tracker's package is not there.
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
            f"augmentation.zoom: expected the least scale first, got {least} {largest}"
        )
    _check_places(config)
    check_trackers(config)
    check_run(config)


def check_devices(config: TrainConfig) -> None:
    """Finds batches that do not divide by the devices; the first use of a device.

    Args:
      config: of a run that is about to start.

    Raises:
      ValueError: for such batches.
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
    """Finds splits that do not go together, or with the configuration.

    Args:
      config: of a run that is about to start.
      source: of training.
      eval_source: of evaluation.

    Raises:
      ValueError: for such splits.
    """
    if source.classes != eval_source.classes:
        raise ValueError(
            f"eval_split: expected the classes of {config.train_split}, {_listed(source.classes)}; "
            f"got {_listed(eval_source.classes)}"
        )
    weights = getattr(config.objective, "class_weights", None)
    if weights and len(weights) != len(source.classes):
        raise ValueError(
            f"objective.class_weights: expected {len(source.classes)}, one for each of "
            f"{', '.join(source.classes.names)}; got {len(weights)}"
        )


def _listed(classes: Classes) -> str:
    return ", ".join(f"{k} {name}" for k, name in zip(classes.ids, classes.names, strict=True))


def check_ranges(config: TrainConfig) -> None:
    """Finds numbers that are out of range.

    Args:
      config: of a run.

    Raises:
      ValueError: for such a number; it names the option.
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
    """Options that do nothing in this run."""
    synthetic = full_spec(config.data).startswith("synthetic")
    effects = {
        "fsdp": (config.parallel == "mesh", "without parallel mesh"),
        "coordinator": (config.distributed, "without distributed"),
        "num_processes": (config.distributed, "without distributed"),
        "process_id": (config.distributed, "without distributed"),
        "scale": (not synthetic, f"for {config.data}, whose scenes are drawn in --size"),
        "max_value": (not synthetic, f"for {config.data}"),
        "strict": (full_spec(config.data).startswith("coco:"), f"for {config.data}"),
        "scenes": (config.data == "synthetic", f"for {config.data}"),
        "void": (
            full_spec(config.data).startswith(("folder:", "tfds:")),
            f"for {config.data}, which declares its void itself",
        ),
    }
    for name, (works, where) in effects.items():
        if not works:
            for option in _given(config, name):
                raise ValueError(f"{option}: no effect {where}, got {_value(config, option)}")


def check_model(config: TrainConfig) -> None:
    """Finds a model that does not exist, is none for the task, or does not take images of `size`.

    Args:
      config: Configuration of a run.

    Raises:
      ValueError: for such a model, one of its options, or an objective of another kind of model.
    """
    model = make_model(config, 1)  # of however many classes
    own, given = default_objective(config.model), config.objective
    boxes_alone = getattr(model, "mask_head", True) is None
    if config.task not in own.tasks or (config.task == "panoptic" and boxes_alone):
        suited = CONFIGS[config.task]().model
        serves = "instance" if boxes_alone else " and ".join(own.tasks)
        raise ValueError(
            f"model: expected one for the {config.task} task, such as {suited}; got "
            f"{config.model}, which is for {serves}"
        )
    if given is not None and type(given) is not type(own):
        raise ValueError(
            f"objective: expected {type(own).__name__} for {config.model}, got "
            f"{type(given).__name__}"
        )
    if config.model_options or min(config.size) < _SMALL:
        _trace(config)


def _trace(config: TrainConfig) -> None:
    """Whether the model, with its options, takes images of `size`."""
    model = make_model(config, 1)
    images = jax.ShapeDtypeStruct((1, *config.size, 3), np.float32)
    try:
        jax.eval_shape(model.init, jax.random.key(0), images)
    except Exception as error:
        options = " ".join(f"{k} {v}" for k, v in config.model_options.items())
        given = f"size {config.size}" + (f" and model_options {options}" if options else "")
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"model: {config.model} takes no {given} ({reason})") from error


def _check_places(config: TrainConfig) -> None:
    """Whether weights and data are where they are said to be."""
    weights = config.weights
    begun = has_checkpoint(config.run / "checkpoints")  # and then needs the weights no more
    if weights is not None and not begun and not pathlib.Path(weights).exists():
        is_file = pathlib.Path(weights).suffix in (".safetensors", *TORCH_SUFFIXES)
        if is_file or weights.count("/") != 1 or weights.startswith((".", "/", "~")):
            raise FileNotFoundError(f"{weights}: there is no such file")
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
    """Which of the options under a name are not the defaults."""
    value, default = _value(config, name), _value(type(config)(), name)
    if not dataclasses.is_dataclass(value):
        return [name] if value != default else []
    return [
        f"{name}.{field.name}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != getattr(default, field.name)
    ]
