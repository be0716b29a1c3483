"""State dicts in files: safetensors in and out, and torch's own in."""

import functools
import json
import operator
import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from segjax.pretrained.errors import WeightsError
from segjax.pretrained.torch_files import COUNTER, read_torch

INDEX_SUFFIX = ".index.json"  # of what says in which files the parts of large weights are
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# Of safetensors' types those that NumPy has, or JAX.
_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "BF16": jnp.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}


def read_state_dict(path: str | os.PathLike, *, average: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a file, by key.

    Args:
      path: of a `.safetensors` file, or of one of torch's (`.pth`, `.pt`, `.bin`, `.ckpt`), of
        which no code is run. Or of the index (`.index.json`) of such files that lie beside it.
      average: whether of a file with trained weights and their moving average the latter is taken.

    Returns:
      NumPy arrays by the file's keys; bfloat16 and float8 ones are of JAX's types.

    Raises:
      WeightsError: where the file is damaged, is not what its suffix says, or has no average that
        is asked for.
      OSError: where it cannot be read.

    Example:
      >>> read_state_dict("weights.h5")
      Traceback (most recent call last):
      segjax.pretrained.errors.WeightsError: weights.h5: due is .safetensors, .pth, .pt, .bin, .ckpt
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        names = part_names(path)
        parts = (read_state_dict(path.with_name(name), average=average) for name in names)
        return functools.reduce(operator.or_, parts, {})
    if path.suffix == ".safetensors":
        arrays = _read_safetensors(path)
        if average and COUNTER not in arrays:
            raise WeightsError(f"{path}: average: expected a moving average, got weights alone")
        return arrays
    if path.suffix in TORCH_SUFFIXES:
        return read_torch(path, average=average)
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
    with path.open("rb") as file:  # safetensors' own errors do not name it
        try:
            with safetensors.safe_open(path, "numpy"):
                pass  # the header is whole, and each array has its place in the file
        except safetensors.SafetensorError as error:
            reason = f"no safetensors file, or a damaged one ({error})"
            raise WeightsError(f"{path}: {reason}") from error
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data, arrays = file.tell(), {}
        for key, entry in header.items():
            if key == "__metadata__":
                continue
            if entry["dtype"] not in _DTYPES:
                raise WeightsError(
                    f"{path}: {key!r}: expected one of {', '.join(_DTYPES)}, got {entry['dtype']}; "
                    "save it as F32 instead"
                )
            begin, end = entry["data_offsets"]
            file.seek(data + begin)
            array = np.frombuffer(file.read(end - begin), _DTYPES[entry["dtype"]])
            arrays[key] = array.reshape(entry["shape"])
    return arrays
