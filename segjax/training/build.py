"""Builds the model and the task of a configuration."""

import ast
from typing import Any

import jax
from flax import linen as nn

from segjax import models, pretrained
from segjax.data import Classes
from segjax.tasks import InstanceTask, PanopticTask, SemanticTask, Task
from segjax.training.config import (
    CONFIGS,
    InstanceConfig,
    PanopticConfig,
    SemanticConfig,
    TrainConfig,
)


def make_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """Creates the model of a configuration.

    Args:
      config: Configuration of the run.
      num_classes: Number of classes that the model predicts.

    Returns:
      The Flax module.

    Raises:
      ValueError: If the model, or one of its options, is unknown.
    """
    return models.create(config.model, num_classes, **model_options(config))


def load_weights(config: TrainConfig, classes: Classes, channels: int) -> dict | None:
    """Loads the pretrained weights of a configuration, if it names any.

    Args:
      config: Configuration of the run.
      classes: Classes of the data.
      channels: Number of channels of the images.

    Returns:
      Variables of the model as NumPy arrays, or None if the configuration names no weights.

    Raises:
      ValueError: If the file holds no weights, or those of another model.
      OSError: If the file cannot be read.
    """
    if config.weights is None:
        return None
    return pretrained.load(
        config.weights,
        config.model,
        num_classes=len(classes),
        class_names=classes.names,
        channels=channels,
        key=jax.random.key(config.seed),
        **model_options(config),
    )


def make_task(config: TrainConfig, classes: Classes) -> Task:
    """Creates the task of a configuration.

    Args:
      config: Configuration of the run.
      classes: Classes of the data.

    Returns:
      The task.

    Raises:
      ValueError: If the model is unknown.
    """
    options: dict[str, Any] = {"objective": config.objective, "scale": config.scale}
    model, number = config.model, len(classes)
    match config:
        case SemanticConfig():
            return SemanticTask.for_model(model, number, **options)
        case InstanceConfig():
            return InstanceTask.for_model(
                model,
                number,
                things=classes.things,
                max_objects=config.max_objects,
                nms_threshold=config.nms_threshold,
                **options,
            )
        case PanopticConfig():
            return PanopticTask.for_model(
                model,
                number,
                things=classes.things,
                max_objects=config.max_objects,
                score_threshold=config.score_threshold,
                overlap_threshold=config.overlap_threshold,
                **options,
            )
    raise TypeError(
        f"config: expected {', '.join(kind.__name__ for kind in CONFIGS.values())}, "
        f"got {type(config).__name__}"
    )


def read_options(texts: dict[str, str]) -> dict[str, Any]:
    """Parses model options from the command line: Python literals, anything else as a string."""
    return {name: _literal(text) for name, text in texts.items()}


def model_options(config: TrainConfig) -> dict[str, Any]:
    """The options of the model as keyword arguments of its constructor."""
    return {"dtype": config.dtype} | read_options(config.model_options)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
