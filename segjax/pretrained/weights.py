"""Published weights in, and out again under the same names."""

import logging
import os
from typing import Any

import jax
import jax.numpy as jnp

from segjax.models import MODELS
from segjax.naming import unknown_name
from segjax.pretrained.errors import WeightsError
from segjax.pretrained.files import read_state_dict, write_safetensors
from segjax.pretrained.fitting import (
    Fitted,
    canonical,
    count_channels,
    count_classes,
    fit,
    nearest_table,
)
from segjax.pretrained.hub import find_weights
from segjax.pretrained.keys import map_paths, to_state_dict
from segjax.pretrained.registry import find_published, make_published

_LOGGER = logging.getLogger(__name__)
_SIDE = 64  # pixels of the images that show a model's shapes


def load(
    source: str | os.PathLike,
    name: str,
    *,
    num_classes: int | None = None,
    channels: int | None = None,
    key: jax.Array | None = None,
    **options: Any,
) -> dict:
    """A model's variables with published weights.

    Weights of a classifier go into its backbone, also within a segmentation model. For other
    classes the head is new, for other channels the first kernel adapts as timm's does, and position
    embeddings are interpolated; the log says so.

    Args:
      source: a file (`.safetensors`; `.pth`, `.pt`, `.bin` or `.ckpt` with the extra `torch`), a
        folder with one, or with the extra `hub` a repository of the Hugging Face hub, "OWNER/NAME"
        or "OWNER/NAME@REVISION".
      name: of a model (a key of `segjax.models.MODELS`) or of a backbone.
      num_classes: of the logits; None takes the file's.
      channels: of the images; None takes the file's.
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
    published = find_published(name)
    path = find_weights(source)
    state_dict = read_state_dict(path)
    table = nearest_table([published.table, *published.namings.values()], state_dict)
    state_dict = canonical(table, state_dict)
    found = count_classes(table, state_dict)
    classes = found if num_classes is None else num_classes
    if classes is None and name in MODELS:
        raise ValueError(f"num_classes is None; due is a number, for {path} has no head of {name}")
    if channels is None:
        channels = count_channels(table, state_dict) or 3

    model = make_published(name, classes or 0, **options)
    dimensions = getattr(model, "dimensions", 2)
    images = jax.ShapeDtypeStruct((1, *[_SIDE] * dimensions, channels), jnp.float32)
    template = jax.eval_shape(model.init, jax.random.key(0), images)
    try:
        fitted = fit(table, state_dict, template, new_head=classes != found)
    except WeightsError as error:
        raise WeightsError(f"{path}: not the weights of {name}\n{error}") from None
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
            drawn = {}
            map_paths(drawn.__setitem__, model.init(key, jnp.zeros(images.shape, images.dtype)))
            return {path: drawn[path] for path in fitted.fresh}

        arrays |= jax.device_get(draw(key))
    return map_paths(lambda path, _: arrays[path], template)


def save(variables: dict, path: str | os.PathLike, name: str, *, naming: str | None = None) -> None:
    """Writes a model's variables under the names of the published one, for torch to load strictly.

    Args:
      variables: of the model.
      path: of a safetensors file; one that is there is replaced.
      name: of the model or backbone.
      naming: whose names, where there are several: a key of `find_published(name).namings`.

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
    published = find_published(name)
    if naming is None:
        table = published.table
    elif naming in published.namings:
        table = published.namings[naming]
    else:
        raise ValueError(unknown_name(f"naming of {name}", naming, published.namings))
    try:
        state_dict = to_state_dict(table, jax.device_get(variables))
    except ValueError as error:
        raise ValueError(f"variables: not of {name}: {error}") from None
    write_safetensors(state_dict, path, metadata={"model": name})


def _report(path: os.PathLike, fitted: Fitted) -> None:
    """Says what is not as the file has it."""
    if fitted.fresh:
        _LOGGER.warning("%s: drawn anew: %s", path, _some(fitted.fresh.values()))
    if fitted.adapted:
        _LOGGER.warning("%s: adapted in shape: %s", path, _some(fitted.adapted))


def _some(keys) -> str:
    first, *more = keys
    rest = f" and {len(more) - 3} more" if len(more) > 3 else ""
    return ", ".join([first, *more[:3]]) + rest
