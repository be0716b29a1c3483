"""Fills what a configuration leaves open: its model's objective, its optimizer's options."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from segjax.registry import default_objective, find_entry
from segjax.training.config import CONFIGS, TrainConfig, from_dict
from segjax.training.optimizer_config import SCRATCH, fill_options

Config = TypeVar("Config", bound=TrainConfig)


def with_model(config: Config, model: str) -> Config:
    """The configuration with a model and an objective of the kind that the model is trained on.

    Args:
      config: Configuration of a run.
      model: Name of the model.

    Returns:
      The configuration, without the options of another model. Its objective stays where it is of
      the model's kind; otherwise it is the model's own.

    Raises:
      ValueError: for an unknown model.
    """
    own = default_objective(model)
    return dataclasses.replace(
        config,
        model=model,
        model_options=config.model_options if model == config.model else {},
        objective=config.objective if type(config.objective) is type(own) else own,
    )


def parse_config(values: Mapping[str, Any], default: TrainConfig | None = None) -> Any:
    """The configuration that a file holds.

    Args:
      values: Options by name, as in `config.json`.
      default: Configuration for what `values` leaves out, of the only task that is accepted; None
        takes the defaults of the task that `values` names.

    Returns:
      The configuration.

    Raises:
      ValueError: for a task, an option or a value that cannot be.
    """
    tasks = list(CONFIGS) if default is None else [default.task]
    task = values.get("task", tasks[0])
    if task not in tasks:
        raise ValueError(f"task: expected {' or '.join(tasks)}, got {task!r}")
    default = CONFIGS[task]() if default is None else default
    default = with_model(default, str(values.get("model", default.model)))
    return from_dict(default, {name: x for name, x in values.items() if name != "task"})


def resolve(config: Config) -> Config:
    """The configuration with an objective, and a value for every option of its optimizer.

    Args:
      config: Configuration of a run.

    Returns:
      The configuration with the model's objective where it has none, and with the defaults from
      scratch, or with `weights` those of the model's recipe, for what its optimizer leaves open.
      Resolving it again changes nothing.

    Raises:
      ValueError: for options that the recipe has no values for.
    """
    entry = find_entry(config.model)
    recipe = SCRATCH if config.weights is None else entry.recipe
    optimizer = fill_options(
        config.optimizer, recipe, steps=config.steps, batch_size=config.batch_size
    )
    objective = default_objective(config.model) if config.objective is None else config.objective
    return dataclasses.replace(config, objective=objective, optimizer=optimizer)
