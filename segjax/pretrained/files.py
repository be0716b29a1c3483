"""State dicts in files: safetensors in and out, and torch's own without running what they hold."""

import functools
import importlib
import json
import operator
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from segjax.pretrained.errors import WeightsError

INDEX_SUFFIX = ".index.json"  # of what says in which files the parts of large weights are
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# Under which key a training script keeps the model's state dict, if not at the top.
_NESTED = ("state_dict", "model", "model_state_dict", "model_state")


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a file, by key.

    Args:
      path: of a `.safetensors` file, or of one of torch's (`.pth`, `.pt`, `.bin`, `.ckpt`), which
        takes torch; of a pickle no code is run, and what is no array is refused. Or of the index
        (`.index.json`) of such files that lie beside it.

    Returns:
      NumPy arrays by the file's keys; bfloat16 ones are of `ml_dtypes`.

    Raises:
      WeightsError: where the file is damaged, or is not what its suffix says.
      OSError: where it cannot be read.
      ImportError: where torch is missing.

    Example:
      >>> read_state_dict("weights.h5")
      Traceback (most recent call last):
      segjax.pretrained.errors.WeightsError: weights.h5: due is .safetensors, .pth, .pt, .bin, .ckpt
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        parts = (read_state_dict(path.with_name(name)) for name in part_names(path))
        return functools.reduce(operator.or_, parts, {})
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    raise WeightsError(f"{path}: due is .safetensors, {', '.join(TORCH_SUFFIXES)}")


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The texts that a safetensors file has beside its arrays; of other files none.

    Args:
      path: of a file.

    Returns:
      Texts by name.

    Raises:
      WeightsError: where the file is damaged.
      OSError: where it cannot be read.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb"):
        pass
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: no safetensors file, or a damaged one ({error})") from error


def part_names(index: Path) -> list[str]:
    """The names of the files that an index speaks of; they lie beside it.

    Args:
      index: path of a `.index.json` file.

    Returns:
      The names, each once.

    Raises:
      WeightsError: where it is no index, or a name leads elsewhere.
      OSError: where it cannot be read.
    """
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index}: no index of weights, or a damaged one ({error})") from error
    for name in names:
        plain = isinstance(name, str) and Path(name).name == name
        if not (plain and name.endswith((".safetensors", *TORCH_SUFFIXES))):
            raise WeightsError(f"{index}: names of files beside it were due, got {name!r}")
    return names


def write_safetensors(
    state_dict: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays into a safetensors file: whole, or not at all.

    Args:
      state_dict: arrays by key.
      path: of the file; a file there is replaced.
      metadata: texts beside them.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
      >>> write_safetensors({"weight": np.ones(2, np.float32)}, path)
      >>> read_state_dict(path)
      {'weight': array([1., 1.], dtype=float32)}
    """
    path = Path(path)
    draft = path.with_suffix(".draft")
    try:
        # As transformers does: "pt" says that the arrays are laid out as torch's.
        safetensors.numpy.save_file(
            dict(state_dict), draft, metadata={"format": "pt", **(metadata or {})}
        )
        draft.replace(path)
    except safetensors.SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb"):
        pass  # safetensors' own errors do not name the file
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: no safetensors file, or a damaged one ({error})") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: arrays of a type that NumPy does not have ({error})"
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb"):
        pass
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"{path}: torch is due to read it: pip install 'segjax[torch]'"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path}: damaged, or holds more than arrays; nothing of it was run ({reason})"
        ) from error
    except Exception as error:  # whatever else a damaged file makes of torch's readers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: no file of torch's, or a damaged one ({reason})") from error
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: a dict of arrays was due, got {type(content).__name__}")
    strange = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise WeightsError(f"{path}: arrays were due, got something else at {strange[0]!r}")
    return {str(key): _to_numpy(torch, value) for key, value in content.items()}


def _to_numpy(torch: Any, tensor: Any) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:  # which NumPy does not know
        return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()
