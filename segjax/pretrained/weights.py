"""Loading and saving of weights: published ones, and those of training runs."""

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
from segjax.suggestions import unknown_name

_LOGGER = logging.getLogger(__name__)
_SIDE = 64  # of the images that shapes are inferred with, in pixels


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
    """Loads a model's variables from published weights, or from a training run.

    Weights of a classifier are loaded into the backbone, also that of a segmentation model. The
    head is newly initialised for another number of classes, the first kernel is adapted to other
    channels as in timm, and position embeddings are interpolated. Prefixes that training adds to
    all keys ("module.", "model.") are removed. All of this is logged.

    Args:
      source: folder of a training run, whose best checkpoint is taken; a file written by `save` or
        `segjax convert`, or a published one (`.safetensors`, `.pth`, `.pt`, `.bin`, `.ckpt`); a
        folder with such a file; or, with the extra `hub`, a repository of the Hugging Face hub,
        "OWNER/NAME" or "OWNER/NAME@REVISION".
      name: name of a model (a key of `segjax.models.MODELS`) or of a backbone.
      num_classes: number of classes of the logits; None takes the file's.
      class_names: names of the classes, if known; the head of a run with other classes is newly
        initialised, even if their number is the same.
      channels: number of channels of the images; None takes the file's.
      average: whether to take the moving average of the weights, of a file that has both.
      key: random key for what is newly initialised: a new head, or all but the backbone.
      **options: attributes of the model's module.

    Returns:
      Variables, NumPy arrays, for `create(name, num_classes, **options).apply(variables, images)`.

    Raises:
      WeightsError: if the file is damaged, or keys are missing, unexpected or mis-shaped; it lists
        these.
      ValueError: if a name or option is unknown, or `key` is needed but None.
      OSError: if the file cannot be read.
      ImportError: if an extra is missing.

    Example:
      >>> from segjax import pretrained
      >>> pretrained.load("none.safetensors", "deeplabv3_resnet50")
      Traceback (most recent call last):
      FileNotFoundError: none.safetensors: No such file or directory
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
            _LOGGER.warning("%s: removed the common prefix of all keys: %r", path, prefix)
        table = nearest_table(tables, state_dict)
    else:
        raise WeightsError(
            f"{path}: expected a run of {name} or its file, as {name} has no published weights"
        )
    state_dict = canonical(table, state_dict)
    found = count_classes(table, state_dict)
    classes = found if num_classes is None else num_classes
    if classes is None and name in MODELS:
        if not any(map(table.names, state_dict)):
            got = _some(map(repr, state_dict)) if state_dict else "none"
            raise WeightsError(f"{path}: expected arrays of {name}, got none of its keys: {got}")
        raise ValueError(
            f"num_classes: expected a number, as {path} has no head of {name}; got None"
        )
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
    if fitted.new:
        if key is None:
            raise ValueError(
                f"key: expected a random key, as {path} has nothing that fits "
                f"{_some(fitted.new.values())}; got None"
            )

        # jit computes only what the new arrays depend on.
        @jax.jit
        def draw(key):
            drawn: dict[str, jax.Array] = {}
            images = _images(model, channels)
            map_paths(drawn.__setitem__, model.init(key, jnp.zeros(images.shape, images.dtype)))
            return {path: drawn[path] for path in fitted.new}

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
    """Writes a model's variables to a safetensors file, which `load` reads.

    The arrays of a published model have its original names, so that torch loads them strictly.
    Those of other models have segjax's own, "COLLECTION/MODULE/ARRAY", which
    `flax.traverse_util.unflatten_dict` turns back into variables.

    Args:
      variables: variables of the model.
      path: path of the safetensors file; an existing file is replaced.
      name: name of the model or backbone.
      naming: naming convention of the keys, if there are several: a key of the `namings` of
        `segjax.registry.find_entry(name)`, or "segjax" for our own; None for the usual one.
      metadata: texts to store in the file.

    Raises:
      ValueError: if the name or naming is unknown, or the variables are of another model.
      OSError: if the file cannot be written.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import pretrained
      >>> import tempfile
      >>> from segjax.models import backbones
      >>> images = jnp.zeros((1, 8, 8, 3))
      >>> variables = jax.eval_shape(backbones.resnet18().init, jax.random.key(0), images)
      >>> variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)
      >>> path = f"{tempfile.mkdtemp()}/resnet18.safetensors"
      >>> pretrained.save(variables, path, "resnet18")
      >>> len(pretrained.load(path, "resnet18")["params"]["stem_norm"]["scale"])
      64
    """
    state_dict = _name(jax.device_get(variables), name, naming)
    write_safetensors(state_dict, path, metadata={"model": name, **(metadata or {})})


def count_variables(variables: dict, name: str, **options: Any) -> tuple[int, int]:
    """Counts the classes and image channels of a model's variables.

    Args:
      variables: variables of the model, as from `load`.
      name: name of the model.
      **options: attributes of its module.

    Returns:
      The number of classes, and the number of image channels.
    """

    def shapes(classes: int, channels: int) -> dict:
        model = make_model(name, classes, **options)
        return jax.eval_shape(model.init, jax.random.key(0), _images(model, channels))

    table, state_dict = own_names(shapes), own_state_dict(variables)
    return table.count_classes(state_dict) or 0, table.count_channels(state_dict) or 3


def usual_naming(variables: dict, name: str) -> str | None:
    """The naming convention for the model of a run: segjax's own if its options are unpublished.

    Args:
      variables: variables of the model.
      name: name of the model.

    Returns:
      None for the usual convention of published weights, or "segjax".
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
    """The path, arrays by name, and the model and class names in the metadata."""
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
    """The key tables of a model's published weights; none if nothing is published."""
    entry = find_entry(name)
    return [] if entry.table is None else [entry.table, *entry.namings.values()]


def _name(variables: dict, name: str, naming: str | None) -> dict[str, np.ndarray]:
    """The arrays of variables by their names in a naming convention."""
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
    """Small images to infer shapes with."""
    sides = [_SIDE] * getattr(model, "dimensions", 2)
    return jax.ShapeDtypeStruct((1, *sides, channels), jnp.float32)


def _report(path: os.PathLike, fitted: Fitted) -> None:
    """Logs what is not as in the file."""
    if fitted.new:
        _LOGGER.warning("%s: newly initialised: %s", path, _some(fitted.new.values()))
    if fitted.adapted:
        _LOGGER.warning("%s: adapted in shape: %s", path, _some(fitted.adapted))


def _some(keys: Iterable[str]) -> str:
    first, *more = keys
    rest = f" and {len(more) - 3} more" if len(more) > 3 else ""
    return ", ".join([first, *more[:3]]) + rest
