"""Weights in and out: published ones under their names, those of runs, and files of either."""

import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from segjax.models import MODELS
from segjax.naming import unknown_name
from segjax.pretrained.errors import WeightsError
from segjax.pretrained.files import read_metadata, read_state_dict, write_safetensors
from segjax.pretrained.fitting import (
    Fitted,
    canonical,
    count_channels,
    count_classes,
    fit,
    nearest_table,
    unwrap,
)
from segjax.pretrained.hub import find_weights
from segjax.pretrained.keys import KeyTable, map_paths, to_state_dict
from segjax.pretrained.own import NAMING, is_own, own_names, own_state_dict
from segjax.registry import ENTRIES, find_entry, make_model

_LOGGER = logging.getLogger(__name__)
_SIDE = 64  # pixels of the images that show a model's shapes


def load(
    source: str | os.PathLike,
    name: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    channels: int | None = None,
    average: bool = False,
    key: jax.Array | None = None,
    **options: Any,
) -> dict:
    """A model's variables with weights that are published, or that a run has learnt.

    Weights of a classifier go into its backbone, also within a segmentation model. For other
    classes the head is new, for other channels the first kernel adapts as timm's does, and position
    embeddings are interpolated. Names that training put before all keys ("module.", "model.") are
    left out. The log says so.

    Args:
      source: the folder of a training run, whose best checkpoint it is; a file that `save` or
        `segjax convert` has written, or a published one (`.safetensors`, `.pth`, `.pt`, `.bin`,
        `.ckpt`); a folder with one; or with the extra `hub` a repository of the Hugging Face hub,
        "OWNER/NAME" or "OWNER/NAME@REVISION".
      name: of a model (a key of `segjax.models.MODELS`) or of a backbone.
      num_classes: of the logits; None takes the file's.
      class_names: of the logits, where there are names; a head that a run has learnt for other
        classes is new, however many they are.
      channels: of the images; None takes the file's.
      average: whether of a file of torch's with both the moving average of the weights is taken.
      key: a random key, for what the file does not have: a new head, or all but the backbone.
      **options: attributes of the model's module.

    Returns:
      Variables, NumPy arrays: `create(name, num_classes, **options).apply(variables, images)`.

    Raises:
      WeightsError: where the file is damaged, or lists of keys that are missing, unexpected or
        mis-shaped.
      ValueError: for an unknown name or option, or where a key is due.
      OSError: where the file cannot be read.
      ImportError: where an extra is missing.

    Example:
      >>> load("none.safetensors", "deeplabv3_resnet50")
      Traceback (most recent call last):
      FileNotFoundError: none.safetensors: there is no such file
    """
    tables = _tables(name)
    path, state_dict, origin, learnt = _read(source, average)

    @functools.cache
    def shapes(classes: int, channels: int) -> dict:
        model = make_model(name, classes, **options)
        return jax.eval_shape(model.init, jax.random.key(0), _images(model, channels))

    if is_own(state_dict):
        table: KeyTable = own_names(shapes)
    elif tables:
        state_dict, prefix = unwrap(tables, state_dict)
        if prefix:
            _LOGGER.warning("%s: left out, as all keys begin with it: %r", path, prefix)
        table = nearest_table(tables, state_dict)
    else:
        raise WeightsError(
            f"{path}: expected a run of {name} or its file, for nothing is published of {name}"
        )
    state_dict = canonical(table, state_dict)
    found = count_classes(table, state_dict)
    classes = found if num_classes is None else num_classes
    if classes is None and name in MODELS:
        if not any(map(table.names, state_dict)):
            got = _some(map(repr, state_dict)) if state_dict else "none"
            raise WeightsError(f"{path}: expected arrays of {name}, got none of its keys: {got}")
        raise ValueError(f"num_classes is None; due is a number, for {path} has no head of {name}")
    if channels is None:
        channels = count_channels(table, state_dict) or 3

    model = make_model(name, classes or 0, **options)
    template = shapes(classes or 0, channels)
    try:
        other = class_names is not None and learnt not in (None, tuple(class_names))
        fitted = fit(table, state_dict, template, new_head=other or classes != found)
    except WeightsError as error:
        but = f", but of {origin}" if origin not in (None, name) else ""
        raise WeightsError(f"{path}: not the weights of {name}{but}\n{error}") from None
    _report(path, fitted)
    arrays = dict(fitted.arrays)
    if fitted.fresh:
        if key is None:
            raise ValueError(
                f"key is None; due is a random key, for {path} has nothing that fits "
                f"{_some(fitted.fresh.values())}"
            )

        # Under jit what does not reach the fresh arrays is never computed.
        @jax.jit
        def draw(key):
            drawn: dict[str, jax.Array] = {}
            images = _images(model, channels)
            map_paths(drawn.__setitem__, model.init(key, jnp.zeros(images.shape, images.dtype)))
            return {path: drawn[path] for path in fitted.fresh}

        arrays |= jax.device_get(draw(key))
    return map_paths(lambda path, _: arrays[path], template)


def save(
    variables: dict,
    path: str | os.PathLike,
    name: str,
    *,
    naming: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a model's variables into a file that `load` reads.

    Of a published model they have its names, for torch to load strictly. Where none is published
    they have our own, "COLLECTION/MODULE/ARRAY", which `flax.traverse_util.unflatten_dict` turns
    back into variables.

    Args:
      variables: of the model.
      path: of a safetensors file; one that is there is replaced.
      name: of the model or backbone.
      naming: whose names, where there are several: a key of the `namings` of
        `segjax.registry.find_entry(name)`, or "segjax" for our own; None for those that the model
        is best known by.
      metadata: further texts for the file.

    Raises:
      ValueError: for an unknown name or naming, or variables that are not of such a model.
      OSError: where it cannot be written.

    Example:
      >>> import tempfile
      >>> from segjax.models import backbones
      >>> images = jnp.zeros((1, 8, 8, 3))
      >>> variables = jax.eval_shape(backbones.resnet18().init, jax.random.key(0), images)
      >>> variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)
      >>> path = f"{tempfile.mkdtemp()}/resnet18.safetensors"
      >>> save(variables, path, "resnet18")
      >>> len(load(path, "resnet18")["params"]["stem_norm"]["scale"])
      64
    """
    state_dict = _name(jax.device_get(variables), name, naming)
    write_safetensors(state_dict, path, metadata={"model": name, **(metadata or {})})


def count_variables(variables: dict, name: str, **options: Any) -> tuple[int, int]:
    """What a model's variables are made for.

    Args:
      variables: of the model, as `load` gives them.
      name: of the model.
      **options: attributes of its module.

    Returns:
      The number of its classes, and that of its images' channels.
    """

    def shapes(classes: int, channels: int) -> dict:
        model = make_model(name, classes, **options)
        return jax.eval_shape(model.init, jax.random.key(0), _images(model, channels))

    table, state_dict = own_names(shapes), own_state_dict(variables)
    return table.count_classes(state_dict) or 0, table.count_channels(state_dict) or 3


def usual_naming(variables: dict, name: str) -> str | None:
    """The naming for a model that a run has learnt: our own where the published one has no names.

    Args:
      variables: of the model, perhaps of unusual options.
      name: of the model.

    Returns:
      None, or "segjax".
    """
    entry = ENTRIES.get(name)
    if entry is not None and (table := entry.table) is not None:
        try:
            map_paths(lambda path, _: table.original(path), variables)
        except ValueError:
            return NAMING
    return None


def is_run(path: str | os.PathLike) -> bool:
    """Whether a path is the folder of a training run."""
    return (Path(path) / "config.json").is_file() and (Path(path) / "checkpoints").is_dir()


def _read(
    source: str | os.PathLike, average: bool
) -> tuple[Path, dict[str, np.ndarray], str | None, tuple[str, ...] | None]:
    """The path, arrays by name, and the model and the classes that they are said to be of."""
    # Runs are of `training`, which itself needs this module.
    from segjax.training.checkpoint import load_variables
    from segjax.training.run_folder import METADATA, read_config

    if is_run(source):
        if average:
            raise ValueError(f"average: expected False, for the run {source} has its own; got True")
        path, info = Path(source), read_config(Path(source))
        name = info.config.model
        variables, _ = load_variables(path / "checkpoints", "best")
        return path, _name(variables, name, usual_naming(variables, name)), name, info.classes.names
    path = find_weights(source)
    metadata = read_metadata(path)
    names = read_config(path).classes.names if METADATA in metadata else None
    return path, read_state_dict(path, average=average), metadata.get("model"), names


def _tables(name: str) -> list[KeyTable]:
    """Of the names that a model's published weights have; none where nothing is published."""
    entry = find_entry(name)
    return [] if entry.table is None else [entry.table, *entry.namings.values()]


def _name(variables: dict, name: str, naming: str | None) -> dict[str, np.ndarray]:
    """The arrays of variables by the names that a naming gives them."""
    tables = _tables(name)
    if naming == NAMING or (naming is None and not tables):
        return own_state_dict(variables)
    if naming is None:
        table = tables[0]
    else:
        namings = ENTRIES[name].namings
        if naming not in namings:
            raise ValueError(unknown_name(f"naming of {name}", naming, [*namings, NAMING]))
        table = namings[naming]
    try:
        return to_state_dict(table, variables)
    except ValueError as error:
        raise ValueError(f"variables: not of {name}: {error}") from None


def _images(model: nn.Module, channels: int) -> jax.ShapeDtypeStruct:
    """Small images that show a model's shapes."""
    sides = [_SIDE] * getattr(model, "dimensions", 2)
    return jax.ShapeDtypeStruct((1, *sides, channels), jnp.float32)


def _report(path: os.PathLike, fitted: Fitted) -> None:
    """Says what is not as the file has it."""
    if fitted.fresh:
        _LOGGER.warning("%s: newly initialised: %s", path, _some(fitted.fresh.values()))
    if fitted.adapted:
        _LOGGER.warning("%s: adapted in shape: %s", path, _some(fitted.adapted))


def _some(keys: Iterable[str]) -> str:
    first, *more = keys
    rest = f" and {len(more) - 3} more" if len(more) > 3 else ""
    return ", ".join([first, *more[:3]]) + rest
