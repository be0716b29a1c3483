"""Writes files as `torch.save` does, without torch."""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

TYPES = {"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16"} | {
    "int64": "Long",
    "uint8": "Byte",
    "bool": "Bool",
}


class Name(NamedTuple):
    """What a pickle imports."""

    module: str
    name: str


class Made(NamedTuple):
    """An object that a pickle makes by a call, and then gives attributes."""

    module: str
    name: str
    arguments: tuple = ()
    state: object = None


class Storage(NamedTuple):
    """The numbers of tensors; `kind` is torch's name of their type."""

    numbers: np.ndarray
    kind: str


def tensor(array, *, shape=None, strides=None, offset=0, storage=None, metadata=()):
    """An array as torch pickles it, or another view of a storage; strides count numbers."""
    array = np.asarray(array)
    storage = storage or Storage(array, TYPES[array.dtype.name])
    shape = array.shape if shape is None else shape
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    arguments = (storage, offset, shape, strides, False, OrderedDict(), *metadata)
    return Made("torch._utils", "_rebuild_tensor_v2", arguments)


class _Pickler(pickle._Pickler):
    """Python's own one, of the slow kind, that can be told what to write."""

    def __init__(self, file, protocol, view):
        super().__init__(file, protocol)
        self.view, self.storages = view, []

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(b"c%s\n%s\n" % (obj.module.encode(), obj.name.encode()))
        elif isinstance(obj, Made):
            self.save(Name(obj.module, obj.name))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        key = next((k for k, s in enumerate(self.storages) if s is obj), len(self.storages))
        self.storages[key:] = self.storages[key:] or [obj]
        kind = Name("torch", f"{obj.kind}Storage")
        return ("storage", kind, str(key), "cpu", obj.numbers.size, *self.view)


def write_pth(path, content, *, form="zip", protocol=2, compression=zipfile.ZIP_STORED, big=False):
    """Writes a file in the form of today, "zip", or of torch before 1.6, "legacy"."""
    stream = io.BytesIO()
    pickler = _Pickler(stream, protocol, (None,) if form == "legacy" else ())
    pickler.dump(content)
    data = [s.numbers.byteswap() if big else s.numbers for s in pickler.storages]
    if form == "zip":
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", stream.getvalue())
            archive.writestr("archive/byteorder", "big" if big else "little")
            for key, numbers in enumerate(data):
                archive.writestr(f"archive/data/{key}", numbers.tobytes())
        return path
    with path.open("wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": not big}):
            pickle.dump(head, file, 2)
        file.write(stream.getvalue())
        pickle.dump([str(key) for key in range(len(data))], file, 2)
        for numbers in data:
            file.write(numbers.size.to_bytes(8, "little") + numbers.tobytes())
    return path
