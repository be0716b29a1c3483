"""Loads the trained variables of a run, checked against the model of its configuration."""

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
    """Loads the trained variables of a run.

    Args:
      path: Folder of the run, or a file that `segjax convert` has written from it.
      checkpoint: "best" (the last if there was no evaluation), "last", or a step. Ignored for a
        file, which holds one checkpoint.

    Returns:
      Description of the run, the variables as NumPy arrays, and their origin as text, such as
      "runs/semantic, step 500".

    Raises:
      OSError: If there is no such run or checkpoint, or it cannot be read.
      ValueError: If the configuration is invalid, or the variables are those of another model.
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
    if misfit := _find_misfit(info, variables):
        raise ValueError(
            f"{path}, step {step}: expected the variables of {info.config.model} with "
            f"{len(info.classes)} classes, got those of another model ({misfit})"
        )
    return info, variables, f"{path}, step {step}"


def _find_misfit(info: RunInfo, variables: dict) -> str | None:
    """Describes the first array whose shape differs from the model's, if any."""
    model = make_model(info.config, len(info.classes))
    shape = (1, *info.config.size, info.channels)
    try:
        images = jax.ShapeDtypeStruct(shape, np.float32)
        expected = _shapes(jax.eval_shape(model.init, jax.random.key(0), images))
    except Exception as error:  # if config.json was edited, any layer may raise anything
        return f"no model for images {shape}: {str(error).strip().splitlines()[0]}"
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
