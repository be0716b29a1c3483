"""What a run has learnt: its variables, held to the model that its configuration names."""

import os
import pathlib

import jax
import numpy as np

from segjax import pretrained
from segjax.training.build import make_model, model_options
from segjax.training.checkpoint import Kind, load_variables
from segjax.training.checks import check_model, check_ranges
from segjax.training.run_folder import RunInfo, read_config


def load_learnt(path: str | os.PathLike, checkpoint: Kind | int) -> tuple[RunInfo, dict, str]:
    """The variables of a run, and what it says of its model.

    Args:
      path: the folder of the run, or the file that `segjax convert` has made of it.
      checkpoint: "best" (where there is none, the last), "last", or a step; a file has but one.

    Returns:
      What the run says of its model, the variables, and where they are from, for people.

    Raises:
      OSError: where there is no such run or checkpoint, or it cannot be read.
      ValueError: where its configuration cannot be, or is of another model than the variables.
    """
    path = pathlib.Path(path)
    info = read_config(path)
    try:
        check_ranges(info.config)
        check_model(info.config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if path.is_file():
        options = model_options(info.config)
        options |= {"num_classes": len(info.classes), "channels": info.channels}
        return info, pretrained.load(path, info.config.model, **options), str(path)
    variables, step = load_variables(path / "checkpoints", checkpoint)
    if misfit := _misfit(info, variables):
        raise ValueError(
            f"{path}: step {step} is not of the model in config.json, {info.config.model} with "
            f"{len(info.classes)} classes: {misfit}"
        )
    return info, variables, f"{path}, step {step}"


def _misfit(info: RunInfo, variables: dict) -> str | None:
    """The first array of another shape than the model has, if any."""
    model = make_model(info.config, len(info.classes))
    shape = (1, *info.config.size, info.channels)
    try:
        images = jax.ShapeDtypeStruct(shape, np.float32)
        expected = _shapes(jax.eval_shape(model.init, jax.random.key(0), images))
    except Exception as error:  # of an edited size, from wherever in the model it is too much
        return f"no images of {shape} ({str(error).strip().splitlines()[0]})"
    found = _shapes(variables)
    for name in expected | found:
        if expected.get(name) != found.get(name):
            return f"{name}: expected {expected.get(name)}, got {found.get(name)}"
    return None


def _shapes(variables: dict) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
