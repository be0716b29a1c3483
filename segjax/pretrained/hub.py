"""Finds weights in files, folders and repositories of the Hugging Face hub."""

import functools
import importlib
import os
import re
from pathlib import Path

from segjax.pretrained.errors import WeightsError
from segjax.pretrained.files import INDEX_SUFFIX, TORCH_SUFFIXES, part_names

# File names of weights on the hub, the preferred first.
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_FILES = tuple(name + ending for name in _WHOLE for ending in ("", INDEX_SUFFIX))
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def find_weights(source: str | os.PathLike) -> Path:
    """Finds the file of weights; from the hub it is downloaded once.

    Args:
      source: path of a file, or of a folder with `model.safetensors` or `pytorch_model.bin`, whole
        or split with an index; otherwise a repository of the hub, "OWNER/NAME" or
        "OWNER/NAME@REVISION", which needs huggingface_hub.

    Returns:
      The path of the file.

    Raises:
      FileNotFoundError: if there is no such file or folder.
      WeightsError: if the hub has no weights or cannot be reached, or for a device or a pipe.
      ImportError: if huggingface_hub is missing.

    Example:
      >>> from segjax.pretrained.hub import find_weights
      >>> find_weights("weights/none.safetensors")
      Traceback (most recent call last):
      FileNotFoundError: weights/none.safetensors: No such file or directory
    """
    path = Path(source)
    if path.is_dir():
        for name in _FILES:
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(
            f"{path}: expected a file of weights, found neither {' nor '.join(_WHOLE)}"
        )
    if path.exists():
        if not path.is_file():
            raise WeightsError(f"{path}: expected a file or a folder, got neither")
        return path
    named_as_file = path.suffix in (".safetensors", *TORCH_SUFFIXES)
    if named_as_file or not _REPOSITORY.fullmatch(str(source)):
        raise FileNotFoundError(f"{source}: No such file or directory")
    return _fetch(str(source))


def find_config(source: str | os.PathLike) -> Path | None:
    """Finds the `config.json` beside weights, as written by transformers.

    Args:
      source: as in `find_weights`.

    Returns:
      Its path, or None; from the hub it is downloaded once.
    """
    path = Path(source)
    if path.exists():
        beside = (path if path.is_dir() else path.parent) / "config.json"
        return beside if beside.is_file() else None
    repository, _, revision = str(source).partition("@")
    try:
        hub = importlib.import_module("huggingface_hub")
        return Path(hub.hf_hub_download(repository, "config.json", revision=revision or None))
    except (ImportError, OSError, ValueError):  # the hub's own errors are subclasses of these
        return None


def _fetch(source: str) -> Path:
    """The file of a repository, from the hub's cache on this machine or from the hub itself."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            f"{source}: No such file; to download it from the hub: pip install 'segjax[hub]'"
        ) from error
    repository, _, revision = source.partition("@")
    fetch = functools.partial(hub.hf_hub_download, repository, revision=revision or None)
    reasons = []
    for name in _FILES:
        try:
            path = Path(fetch(name))
            if name.endswith(INDEX_SUFFIX):
                for part in part_names(path):
                    fetch(part)
            return path
        except WeightsError:
            raise
        except (OSError, ValueError) as error:  # the hub's own errors are subclasses of these
            reasons.append((str(error) or type(error).__name__).splitlines()[0])
    raise WeightsError(
        f"{source}: expected a file, or a repository of the hub with "
        f"{' or '.join(_WHOLE)} ({reasons[-1]})"
    )
