"""The model and the task of a configuration."""

import ast

from flax import linen as nn

from segjax import models
from segjax.tasks import SemanticTask
from segjax.training.config import TrainConfig


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
    options = {name: _literal(text) for name, text in config.model_options.items()}
    return models.create(config.model, num_classes, **{"dtype": config.dtype} | options)


def make_task(config: TrainConfig, num_classes: int) -> SemanticTask:
    """The task of a configuration.

    Args:
      config: of the run.
      num_classes: of the labels.

    Returns:
      The task.
    """
    return SemanticTask(num_classes, loss=config.loss, scale=config.scale)


def _literal(text: str):
    """A value from the command line: a Python literal, or else a plain word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
