"""State dicts in files: reading and writing of safetensors, reading of torch's own files."""

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

INDEX_SUFFIX = ".index.json"  # lists the files that large weights are split into
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# The types of safetensors that NumPy or JAX have.
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
    """Reads the arrays of a file of weights.

    Args:
      path: path of a `.safetensors` file, of one of torch's (`.pth`, `.pt`, `.bin`, `.ckpt`), whose
        pickled code is not run, or of the index (`.index.json`) of such files beside it.
      average: whether to take the moving average of the weights, of a file that has both.

    Returns:
      NumPy arrays by the file's keys; bfloat16 and float8 are JAX's types.

    Raises:
      WeightsError: if the file is damaged, is not what its suffix says, or lacks the average.
      OSError: if it cannot be read.

    Example:
      >>> from segjax.pretrained.files import read_state_dict
      >>> read_state_dict("weights.h5")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      segjax.pretrained.errors.WeightsError: weights.h5: expected .safetensors, .pth, ..., got .h5
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
    expected = ", ".join([".safetensors", *TORCH_SUFFIXES])
    raise WeightsError(f"{path}: expected {expected}, got {path.suffix or 'no suffix'}")


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Reads the metadata of a safetensors file; other files have none.

    Args:
      path: path of the file.

    Returns:
      Texts by name; empty for other files.

    Raises:
      WeightsError: if the file is damaged.
      OSError: if it cannot be read.
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
        raise WeightsError(
            f"{path}: expected a safetensors file, got none or a damaged one ({error})"
        ) from error


def part_names(index: Path) -> list[str]:
    """The names of the files in an index; they lie beside it.

    Args:
      index: path of the `.index.json` file.

    Returns:
      The names, each once.

    Raises:
      WeightsError: if it is not an index, or a name leads elsewhere.
      OSError: if it cannot be read.
    """
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{index}: expected an index of weights, got none or a damaged one ({error})"
        ) from error
    for name in names:
        plain = isinstance(name, str) and Path(name).name == name
        if not (plain and name.endswith((".safetensors", *TORCH_SUFFIXES))):
            raise WeightsError(f"{index}: expected names of files beside it, got {name!r}")
    return names


def write_safetensors(
    state_dict: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays to a safetensors file, atomically.

    Args:
      state_dict: arrays by key.
      path: path of the file; an existing file is replaced.
      metadata: texts to store beside the arrays.

    Example:
      >>> import numpy as np
      >>> from pathlib import Path
      >>> from segjax.pretrained.files import read_state_dict
      >>> from segjax.pretrained.files import write_safetensors
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
      >>> write_safetensors({"weight": np.ones(2, np.float32)}, path)
      >>> read_state_dict(path)
      {'weight': array([1., 1.], dtype=float32)}
    """
    path = Path(path)
    draft = path.with_suffix(".draft")
    try:
        # As in transformers, "pt" tells that the arrays have torch's layout.
        safetensors.numpy.save_file(
            dict(state_dict), draft, metadata={"format": "pt", **(metadata or {})}
        )
        draft.replace(path)
    except safetensors.SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:  # safetensors' own errors do not name the file
        try:
            with safetensors.safe_open(path, "numpy"):
                pass  # checks the header, and that all arrays lie within the file
        except safetensors.SafetensorError as error:
            reason = f"expected a safetensors file, got none or a damaged one ({error})"
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
