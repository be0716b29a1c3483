"""The model and the task of a configuration."""

import ast
import dataclasses
from typing import Any

import jax
from flax import linen as nn

from segjax import models, pretrained
from segjax.data import Classes
from segjax.pretrained.recipes import DEFAULT
from segjax.tasks import InstanceTask, PanopticTask, SemanticTask, Task
from segjax.training.config import TrainConfig
from segjax.training.optimizer_config import SCRATCH, fill_options


def resolve_optimizer(config: TrainConfig) -> TrainConfig:
    """The configuration with a value for every option of its optimizer.

    Args:
      config: of the run.

    Returns:
      It, with the defaults from scratch, or with `weights` those of the model's recipe. What is
      resolved resolves to itself.

    Raises:
      ValueError: for options that the recipe has no values for.
    """
    recipe = SCRATCH
    if config.weights is not None:
        published = pretrained.PUBLISHED.get(config.model)
        recipe = published.recipe if published else DEFAULT
    optimizer = fill_options(
        config.optimizer, recipe, steps=config.steps, batch_size=config.batch_size
    )
    return dataclasses.replace(config, optimizer=optimizer)


def make_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """The model that a configuration names.

    Args:
      config: of the run.
      num_classes: of the logits.

    Returns:
      The Flax module.

    Raises:
      ValueError: for an unknown model or option.
    """
    return models.create(config.model, num_classes, **model_options(config))


def load_weights(config: TrainConfig, classes: Classes, channels: int) -> dict | None:
    """The variables that a configuration's run starts from; None where it draws them.

    Args:
      config: of the run.
      classes: of the labels.
      channels: of the images.

    Returns:
      Variables of its model, NumPy arrays, or None.

    Raises:
      ValueError: for weights that cannot be, or are not the model's.
      OSError: where they cannot be read.
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
    """The task of a configuration.

    Args:
      config: of the run.
      classes: of the labels.

    Returns:
      The task.
    """
    options: dict[str, Any] = {"scale": config.scale}
    if published := pretrained.PUBLISHED.get(config.model):
        options |= {"mean": published.mean, "std": published.std}
    if config.task == "semantic":
        return SemanticTask(len(classes), loss=config.loss, **options)
    options |= {"things": classes.things, "loss": config.set_loss}
    if config.task == "panoptic":
        return PanopticTask(
            len(classes),
            score_threshold=config.score_threshold,
            overlap_threshold=config.overlap_threshold,
            **options,
        )
    return InstanceTask(len(classes), nms_threshold=config.nms_threshold, **options)


def read_options(texts: dict[str, str]) -> dict[str, Any]:
    """Attributes of a model's module as the command line gives them: Python literals, or words."""
    return {name: _literal(text) for name, text in texts.items()}


def model_options(config: TrainConfig) -> dict[str, Any]:
    """The attributes of the model's module that a configuration names."""
    return {"dtype": config.dtype} | read_options(config.model_options)


def _literal(text: str) -> Any:
    """A value from the command line: a Python literal, or else a plain word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
