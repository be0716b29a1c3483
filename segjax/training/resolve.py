"""Completes a configuration: the objective of its model, and the options of its optimizer."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from segjax.registry import default_objective, find_entry
from segjax.training.config import CONFIGS, TrainConfig, from_dict
from segjax.training.optimizer_config import SCRATCH, fill_options

Config = TypeVar("Config", bound=TrainConfig)


def with_model(config: Config, model: str) -> Config:
    """Replaces the model of a configuration, and the objective if the model needs another kind.

    Args:
      config: Configuration of a run.
      model: Name of the model.

    Returns:
      The configuration with this model. If it is a new one, the model options are empty; if the
      objective is of the wrong kind for it, it becomes the model's default.

    Raises:
      ValueError: If the model is unknown.
    """
    own = default_objective(model)
    return dataclasses.replace(
        config,
        model=model,
        model_options=config.model_options if model == config.model else {},
        objective=config.objective if type(config.objective) is type(own) else own,
    )


def parse_config(values: Mapping[str, Any], default: TrainConfig | None = None) -> Any:
    """Creates a configuration from the content of a file.

    Args:
      values: Options by name, as in `config.json`.
      default: Configuration with values for everything that is not in `values`; another task is
        refused. None takes the defaults of the task that `values` names.

    Returns:
      The configuration.

    Raises:
      ValueError: If the task or an option is unknown, or a value has the wrong type.
    """
    tasks = list(CONFIGS) if default is None else [default.task]
    task = values.get("task", tasks[0])
    if task not in tasks:
        raise ValueError(f"task: expected {' or '.join(tasks)}, got {task!r}")
    default = CONFIGS[task]() if default is None else default
    default = with_model(default, str(values.get("model", default.model)))
    return from_dict(default, {name: x for name, x in values.items() if name != "task"})


def resolve(config: Config) -> Config:
    """Fills in the objective and all optimizer options that are None.

    The objective becomes the model's default. Optimizer options become segjax's defaults or, with
    `weights`, those of the model's fine-tuning recipe.

    Args:
      config: Configuration of a run.

    Returns:
      The complete configuration. Resolving it again changes nothing.

    Raises:
      ValueError: If the model is unknown, or the optimizer is not the recipe's and has no learning
        rate.
    """
    entry = find_entry(config.model)
    recipe = SCRATCH if config.weights is None else entry.recipe
    optimizer = fill_options(
        config.optimizer, recipe, steps=config.steps, batch_size=config.batch_size
    )
    objective = default_objective(config.model) if config.objective is None else config.objective
    return dataclasses.replace(config, objective=objective, optimizer=optimizer)
