"""Files of weights: what is written is read again, and no file can do harm."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from segjax.pretrained import WeightsError
from segjax.pretrained.files import read_state_dict, write_safetensors

FLOAT32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors_file(path, header, data=bytes(8), *, length=None):
    """A file by the format's own definition: the header's length, the header as JSON, the data."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + header + data)
    return path


@pytest.mark.parametrize(
    "dtype",
    [
        *(np.float64, np.float32, np.float16, np.int64, np.uint16, np.bool_),
        *(jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2),
    ],
)
def test_what_is_written_is_read_again(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    turned = np.arange(6).reshape(2, 3).astype(dtype).T.copy()
    arrays = {"conv.weight": turned, "empty": np.zeros((0, 3), dtype), "count": np.array(7)}
    write_safetensors(arrays, path)
    read = read_state_dict(path)
    assert read.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_parts_with_an_index_are_one(tmp_path):
    arrays = {f"layer{i}": np.full(2, i, np.float32) for i in range(3)}
    names = ["a-1.safetensors", "a-2.safetensors", "a-1.safetensors"]
    for name in names[:2]:
        part = {key: arrays[key] for key, n in zip(arrays, names, strict=True) if n == name}
        write_safetensors(part, tmp_path / name)
    index = tmp_path / "a.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(arrays, names, strict=True))}))
    read = read_state_dict(index)
    assert read.keys() == arrays.keys()
    np.testing.assert_array_equal(read["layer1"], arrays["layer1"], strict=True)
    (tmp_path / "a-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"a-2\.safetensors"):
        read_state_dict(index)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"weight_map": []}',
        b'{"weight_map": {"a": 1, "b": "a.safetensors"}}',
        b'{"weight_map": {"a": "/a.safetensors"}}',
        b'{"weight_map": {"a": "../a.safetensors"}}',
        b'{"weight_map": {"a": "a.safetensors.index.json"}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_or_hostile_index_is_refused(tmp_path, content):
    index = tmp_path / "a.safetensors.index.json"
    index.write_bytes(content)
    with pytest.raises(WeightsError, match=r"^.*a\.safetensors\.index\.json: "):
        read_state_dict(index)


def test_a_file_of_another_writer_is_read(tmp_path):
    path = safetensors_file(tmp_path / "a.safetensors", {"a": FLOAT32}, struct.pack("<ff", 1, 2))
    np.testing.assert_array_equal(read_state_dict(path)["a"], np.float32([1, 2]), strict=True)


def test_a_type_that_numpy_lacks_is_named_with_its_array(tmp_path):
    header = {"a": FLOAT32, "conv.weight": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]}}
    path = safetensors_file(tmp_path / "a.safetensors", header, bytes(10))
    with pytest.raises(WeightsError, match=r"a\.safetensors: 'conv\.weight': .*got F4; .*as F32"):
        read_state_dict(path)


def test_an_average_that_is_asked_for_is_due(tmp_path):
    path, count = tmp_path / "a.safetensors", {"n_averaged": np.array(3)}
    write_safetensors(count, path)
    assert read_state_dict(path, average=True) == count
    write_safetensors({"a": np.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"a\.safetensors: average: "):
        read_state_dict(path, average=True)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": FLOAT32}, bytes(4), None),  # cut off
        ({"a": FLOAT32}, bytes(12), None),  # data that belongs to nothing
        ({"a": FLOAT32 | {"data_offsets": [0, 4]}}, bytes(4), None),  # less than its shape
        ({"a": FLOAT32 | {"data_offsets": [0, 2**62]}}, bytes(8), None),
        ({"a": FLOAT32 | {"shape": [2**40, 2**40]}}, bytes(8), None),
        ({"a": FLOAT32 | {"shape": [-2]}}, bytes(8), None),
        ({"a": FLOAT32, "b": FLOAT32}, bytes(8), None),  # two arrays in one place
        ({"a": FLOAT32 | {"dtype": "F33"}}, bytes(8), None),
        (b"{", b"", 2**62),  # a header longer than any memory
        (b"[]", b"", None),
        (b"\xff\xfe", b"", None),
        (b"", b"", None),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, header, data, length):
    path = safetensors_file(tmp_path / "a.safetensors", header, data, length=length)
    with pytest.raises(WeightsError, match=r"a\.safetensors: ") as raised:
        read_state_dict(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_none_of_these_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged"):
        read_state_dict(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a\.h5: expected \.safetensors"):
        read_state_dict(tmp_path / "a.h5")
    for name in ("no.safetensors", "no.pth"):
        with pytest.raises(FileNotFoundError):
            read_state_dict(tmp_path / name)


def test_where_nothing_can_be_written_nothing_is_left(tmp_path):
    with pytest.raises(OSError, match="none"):
        write_safetensors({"a": np.zeros(1)}, tmp_path / "none" / "a.safetensors")
    assert not list(tmp_path.iterdir())
