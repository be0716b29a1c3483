"""Reading of files by `torch.save` and `torch.jit.save`, without torch and without running code."""

import functools
import io
import logging
import math
import mmap
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from segjax.pretrained.errors import WeightsError
from segjax.pretrained.pickles import Call, Name, read_pickle

_LOGGER = logging.getLogger(__name__)

# Usual names of a model's state dict in training checkpoints, and of its moving average.
_TRAINED = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "student",
    "params",
    "module",
)
_AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema",
    "ema_model",
    "params_ema",
    "teacher",
)
COUNTER = "n_averaged"  # an entry of torch's own moving averages

_MOST_AXES = 64  # of NumPy's arrays
_SCRIPT = "__torch__."  # how the names of TorchScript's classes begin
_MOST_MODULES = 100_000  # of a TorchScript program
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file by torch before 1.6
_DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "Double": np.float64,
        "Float": np.float32,
        "Half": np.float16,
        "BFloat16": jnp.bfloat16,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
        "ComplexFloat": np.complex64,
        "ComplexDouble": np.complex128,
        "Untyped": np.uint8,
    }.items()
}
# Types of tensors with untyped storage.
_NEW_DTYPES = {
    f"torch.{name}": np.dtype(getattr(jnp, name))
    for name in (
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "uint16",
        "uint32",
        "uint64",
    )
}
# Tensors without plain numbers, and how to convert them.
_OTHERS = {
    "_rebuild_meta_tensor_no_storage": ("a meta tensor, without numbers", "load its weights first"),
    "_rebuild_sparse_tensor": ("a sparse tensor", "save its to_dense()"),
    "_rebuild_sparse_csr_tensor": ("a sparse tensor", "save its to_dense()"),
    "_rebuild_qtensor": ("a quantised tensor", "save its dequantize()"),
    "_rebuild_nested_tensor": ("a nested tensor", "save its to_padded_tensor(0)"),
}


class _Storage(NamedTuple):
    """A storage outside the pickle; the offset is in numbers."""

    key: str
    dtype: np.dtype
    offset: int


class _Content(NamedTuple):
    """The content of a file, a function that reads a storage, and the byte order."""

    content: Any
    read: Callable[[str], bytes]
    big_endian: bool


class _File(io.BufferedReader):
    """A reader that never requests more than the file holds, which Python would allocate first."""

    def read(self, size=-1, /):
        return super().read(min(size, os.fstat(self.fileno()).st_size))


def read_torch(path: Path, *, average: bool = False) -> dict[str, np.ndarray]:
    """Reads the state dict in a file of torch's.

    Args:
      path: path of the file.
      average: whether to take the moving average of the weights.

    Returns:
      Read-only NumPy arrays by key; bfloat16 and float8 are JAX's types.

    Raises:
      WeightsError: if the file is damaged or has no such state dict, or a tensor does not hold
        plain numbers or has more bytes than the whole file.
      OSError: if the file cannot be read.
    """
    with _File(io.FileIO(path)) as file:
        try:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    return _read_arrays(path, _open_zip(archive, path), average)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _read_arrays(path, _open_legacy(mapped), average)
        except WeightsError:
            raise
        except Exception as error:  # zipfile and pickletools raise many kinds of errors
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise WeightsError(
                f"{path}: expected a file of torch's, got none or a damaged one ({reason})"
            ) from error


def _open_zip(archive: zipfile.ZipFile, path: Path) -> _Content:
    members = archive.infolist()
    names = {member.filename for member in members}
    pickled = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickled) != 1:
        raise ValueError("a zip file without data.pkl")
    folder = pickled[0].removesuffix("data.pkl")
    needed = (pickled[0], f"{folder}data/")  # a program's own text may well be compressed
    taken = sum(member.file_size for member in members if member.filename.startswith(needed))
    size = path.stat().st_size
    if taken > size:
        raise WeightsError(
            f"{path}: expected members that are not compressed, as torch.save writes them; got "
            f"{taken} bytes in a file of {size}"
        )
    byteorder = f"{folder}byteorder"
    big = byteorder in names and archive.read(byteorder) == b"big"
    return _Content(
        read_pickle(io.BytesIO(archive.read(pickled[0])), _storage),
        lambda key: archive.read(f"{folder}data/{key}"),
        big,
    )


def _open_legacy(file: mmap.mmap) -> _Content:
    """Opens the format before torch 1.6: pickles, then the length and numbers of each storage."""
    if read_pickle(file, _storage) != _MAGIC:
        raise ValueError("not the beginning of a file of torch's")
    read_pickle(file, _storage)  # the protocol
    system = read_pickle(file, _storage)
    sizes: dict[str, int] = {}  # bytes of a number, by key

    def find(persistent_id):
        storage = _storage(persistent_id)
        sizes.setdefault(storage.key, storage.dtype.itemsize)
        return storage

    content = read_pickle(file, find)
    places = {}
    for key in read_pickle(file, _storage):
        length = int.from_bytes(file.read(8), "little") * sizes[key]
        places[key] = file.tell(), length
        file.seek(length, io.SEEK_CUR)

    def read(key):
        start, length = places[key]
        return file[start : start + length]

    return _Content(content, read, not system["little_endian"])


def _storage(persistent_id: Any) -> _Storage:
    """Parses a persistent id: ("storage", type, key, device, length[, view])."""
    kind, storage_type, key, _, _, *view = persistent_id
    if kind != "storage" or not isinstance(key, str):
        raise ValueError("a persistent id that is not a storage")
    name = storage_type.name.rpartition(".")[2].removesuffix("Storage")
    return _Storage(
        key, _DTYPES.get(name, np.dtype(np.void)), view[0][1] if view and view[0] else 0
    )


def _read_arrays(path: Path, content: _Content, average: bool) -> dict[str, np.ndarray]:
    state_dict = _find_state_dict(path, content.content, average)
    read, most = functools.cache(content.read), path.stat().st_size
    arrays, others = {}, []
    for key, value in state_dict.items():
        tensor = _unwrapped(value)
        if not _is_tensor(tensor):
            others.append(repr(str(key)))
            continue
        try:
            arrays[str(key)] = _to_array(tensor, read, content.big_endian, most)
        except WeightsError as error:
            raise WeightsError(f"{path}: {str(key)!r}: {error}") from None
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        some = ", ".join(others[:3])
        _LOGGER.warning("%s: ignored, as they are not tensors: %s%s", path, some, more)
    return arrays


def _find_state_dict(path: Path, content: Any, average: bool) -> dict:
    """Finds the state dict, at the top or nested."""
    averaged = False
    if isinstance(content, Call) and content.name.startswith(_SCRIPT):
        content = _script_tensors(content)
    for _ in range(4):  # levels
        trained, mean = _entry(content, _TRAINED), _entry(content, _AVERAGED)
        name = mean if mean is not None and (average or trained is None) else trained
        if name is None:
            break
        if name == mean and not average:
            _LOGGER.warning(
                "%s: using the moving average %r, as there are no other weights", path, mean
            )
        elif mean is not None and not average:
            _LOGGER.warning(
                "%s: using %r, not the moving average %r; for that: average=True, --average",
                path,
                name,
                mean,
            )
        averaged |= name == mean
        content = content[name]
    if not isinstance(content, dict) or not any(map(_is_tensor, content.values())):
        raise WeightsError(f"{path}: expected a dict of tensors, got {_described(content)}")
    if average and not averaged and COUNTER not in content:
        raise WeightsError(
            f"{path}: average: expected a file with a moving average, got none in it"
        )
    return content


def _script_tensors(module: Call) -> dict[str, Call]:
    """The parameters and buffers of a TorchScript module, named as in its state dict."""
    tensors: dict[str, Call] = {}
    modules = [("", module)]
    visited = 0
    while modules:
        visited += 1
        if visited > _MOST_MODULES:  # modules that share others may multiply, or hold themselves
            raise ValueError(f"more than {_MOST_MODULES} modules")
        prefix, module = modules.pop()
        inner = []
        for name, value in module.attributes.items():
            if _is_tensor(_unwrapped(value)):
                tensors[f"{prefix}{name}"] = value
            elif isinstance(value, Call) and value.name.startswith(_SCRIPT):
                inner.append((f"{prefix}{name}.", value))
        modules += reversed(inner)
    return tensors


def _entry(content: Any, names: tuple[str, ...]) -> str | None:
    """The name of a dict, or else of an object that may be a whole model; None if there is none."""
    for kind in (dict, Call):
        for name in names if isinstance(content, dict) else ():
            value = content.get(name)
            if isinstance(value, kind) and not _is_tensor(value):
                return name
    return None


def _described(content: Any) -> str:
    if _is_tensor(content):
        return "a tensor"
    if isinstance(content, Call | Name):
        name = content.name
        return f"an object of {name!r}, which was not loaded: save its state_dict() instead"
    if isinstance(content, dict) and content:
        return f"a dict of {', '.join(repr(str(key)) for key in list(content)[:5])}"
    return f"an empty {type(content).__name__}" if content == {} else type(content).__name__


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Call) and value.name.startswith(
        ("torch._utils._rebuild_", "torch._tensor._rebuild_")
    )


def _unwrapped(value: Any) -> Any:
    """A tensor without the wrappers of parameters, subclasses and devices."""
    while isinstance(value, Call):
        match value.name.rpartition(".")[2], value.arguments:
            case (
                "_rebuild_parameter"
                | "_rebuild_parameter_with_state"
                | "_rebuild_device_tensor_from_cpu_tensor",
                (tensor, *_),
            ):
                value = tensor
            case "_rebuild_from_type_v2", (function, _, arguments, _):
                value = Call(function.name, arguments)
            case _:
                break
    return value


def _to_array(
    tensor: Call, read: Callable[[str], bytes], big_endian: bool, most: int
) -> np.ndarray:
    """A tensor as an array: a view of its storage."""
    match tensor.name.rpartition(".")[2], tensor.arguments:
        case "_rebuild_tensor_v2", (storage, offset, shape, strides, _, _, *changes):
            dtype = storage.dtype
        case "_rebuild_tensor_v3", (storage, offset, shape, strides, _, _, new, *changes):
            dtype = _NEW_DTYPES.get(new.name, np.dtype(np.void))
        case name, _:
            kind, remedy = _OTHERS.get(name, (f"one by {name!r}", "save its dense float form"))
            raise WeightsError(f"expected a plain tensor, got {kind}: {remedy}")
    if any(changes):
        raise WeightsError(
            "expected a plain tensor, got a view that negates or conjugates: "
            "save its resolve_neg().resolve_conj()"
        )
    if not dtype.itemsize:
        raise WeightsError("expected numbers of a type that NumPy has: save its float()")
    numbers = (offset, storage.offset, *shape, *strides)
    if len(shape) > _MOST_AXES or not all(
        isinstance(number, int) and 0 <= number < 2**63 for number in numbers
    ):
        raise ValueError("an invalid shape")
    if math.prod(shape) * dtype.itemsize > most:
        raise WeightsError(
            f"expected at most what the file holds, {most} bytes; got the shape {tuple(shape)}, a "
            "view that repeats numbers: save its clone()"
        )
    if 0 in shape:
        return np.empty(shape, dtype)
    content = read(storage.key)
    if big_endian:
        stored = np.frombuffer(content, dtype, len(content) // dtype.itemsize)
        content = stored.byteswap().tobytes()
    steps = [stride * dtype.itemsize for stride in strides]
    # NumPy raises an error where the view leaves the storage.
    return np.ndarray(shape, dtype, content, (offset + storage.offset) * dtype.itemsize, steps)
