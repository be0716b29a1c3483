"""torch's own files: read as torch reads them, without it, and never run."""

import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest
from pth import Made, Name, Storage, tensor, write_pth

from segjax.pretrained import WeightsError
from segjax.pretrained.files import read_state_dict

ONES = np.ones(2, np.float32)
NAMESPACE = Made("argparse", "Namespace", (), {"lr": 0.1})
SCALAR = Made("numpy._core.multiarray", "scalar", (Made("numpy", "dtype", ("f8",)), b"\0" * 8))


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def refusal(path, **options):
    """The one line that a file is refused with."""
    with pytest.raises(WeightsError) as raised:
        read_state_dict(path, **options)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_arrays_are_torch_s(tmp_path, dtype, form):
    torch = pytest.importorskip("torch")
    turned = torch.arange(6, dtype=getattr(torch, dtype)).reshape(2, 3).T
    content = {"state_dict": {"a": turned, "count": torch.tensor(3)}, "epoch": 7}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=form == "zip")
    read = read_state_dict(tmp_path / "a.pth")
    assert read.keys() == {"a", "count"}
    assert read["a"].dtype.name == dtype
    np.testing.assert_array_equal(read["a"].astype(float), turned.double().numpy())
    assert read["count"] == 3


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_views_of_a_storage_are_arrays(tmp_path, form, big, protocol):
    numbers = Storage(np.arange(6, dtype=np.float32), "Float")
    halves = np.arange(3).astype(jnp.bfloat16)
    content = OrderedDict(
        whole=tensor(ONES, storage=numbers, shape=(2, 3)),
        turned=tensor(ONES, storage=numbers, shape=(3, 2), strides=(1, 3)),
        part=tensor(ONES, storage=numbers, shape=(2,), offset=3),
        repeated=tensor(ONES, storage=numbers, shape=(2, 6), strides=(0, 1)),
        parameter=Made("torch._utils", "_rebuild_parameter", (tensor(halves), True, {})),
        count=tensor(np.int64(3)),
        empty=tensor(np.zeros((0, 3), np.float32)),
    )
    path = write_pth(tmp_path / "a.pth", content, form=form, big=big, protocol=protocol)
    whole = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {
        "whole": whole,
        "turned": whole.T,
        "part": np.float32([3, 4]),
        "repeated": np.stack([whole.ravel()] * 2),
        "parameter": halves,
        "count": np.array(3),
        "empty": np.zeros((0, 3), np.float32),
    }
    read = read_state_dict(path)
    assert read.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(read[key], array, strict=True)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "uint16"])
def test_types_that_torch_stores_as_bytes(tmp_path, dtype):
    array = np.array([1, 2, 4]).astype(getattr(jnp, dtype))
    storage = Storage(array.view(np.uint8), "Untyped")
    arguments = (storage, 0, (3,), (1,), False, OrderedDict(), Name("torch", dtype))
    content = {"a": Made("torch._utils", "_rebuild_tensor_v3", arguments)}
    read = read_state_dict(write_pth(tmp_path / "a.pth", content))["a"]
    np.testing.assert_array_equal(read, array, strict=True)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            Made("torch._utils", "_rebuild_meta_tensor_no_storage", (None, (2,), (1,), False)),
            "a meta tensor, without numbers: load its weights first",
        ),
        (Made("torch._utils", "_rebuild_sparse_tensor", (None, ())), "sparse.*to_dense"),
        (Made("torch._utils", "_rebuild_qtensor", ()), "quantised.*dequantize"),
        (Made("torch._utils", "_rebuild_wrapper_subclass", ()), "plain tensor.*_subclass"),
        (tensor(ONES, storage=Storage(ONES, "ComplexHalf")), "a type that NumPy has.*float"),
        (tensor(ONES, metadata=({"neg": True},)), "negates.*resolve_neg"),
        (tensor(ONES, shape=(10**10,), strides=(0,)), "at most what the file holds.*clone"),
        (tensor(ONES, shape=(2**62,) * 9, strides=(0,) * 9), "at most what the file holds"),
    ],
)
def test_what_is_no_array_of_numbers_is_named_with_the_way_out(tmp_path, value, reason):
    path = write_pth(tmp_path / "a.pth", {"model": {"fine": tensor(ONES), "conv.weight": value}})
    message = refusal(path)
    assert message.startswith("'conv.weight': expected ")
    assert re.search(reason, message)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (3,)},
        {"shape": (2,), "strides": (2,)},
        {"offset": 1},
        {"offset": 2**62},
        {"strides": (2**62,)},
        {"strides": (-1,)},
        {"shape": (-1,)},
        {"shape": ("2",)},
        {"shape": (1,) * 100},
        {"strides": (1, 1)},
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, options):
    path = write_pth(tmp_path / "a.pth", {"a": tensor(ONES, **options)})
    assert "damaged" in refusal(path)


def test_members_that_unpack_to_more_than_the_file_are_refused(tmp_path):
    content = {"a": tensor(np.zeros(2**20, np.float32))}
    path = write_pth(tmp_path / "a.pth", content, compression=zipfile.ZIP_DEFLATED)
    assert "not compressed" in refusal(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_no_code_in_a_file_is_run(tmp_path, form):
    path, trap = tmp_path / "a.pth", tmp_path / "trap"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"b": Hostile(trap)}))
        refusal(path)
    else:
        write_pth(path, {"a": tensor(ONES), "b": Hostile(trap)}, form=form)
        assert read_state_dict(path).keys() == {"a"}
    assert not trap.exists()


def test_what_is_harmless_beside_the_weights_is_left_out(tmp_path, caplog):
    model = {"a": tensor(ONES), "epoch": SCALAR, "args": NAMESPACE}
    content = {"args": NAMESPACE, "best": SCALAR, "model": model, "optimizer": {0: [1, 2.5]}}
    assert read_state_dict(write_pth(tmp_path / "a.pth", content)).keys() == {"a"}
    (record,) = caplog.records
    assert record.getMessage().endswith("ignored, as they are not tensors: 'epoch', 'args'")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([tensor(ONES)], "list"),
        ({}, "an empty dict"),
        ({"epoch": 3, "args": NAMESPACE}, "a dict of 'epoch', 'args'"),
        (tensor(ONES), "a tensor"),
        (Made("nets", "Net"), "an object of 'nets.Net', .*: save its state_dict() instead"),
        ({"model": Made("nets", "Net")}, "an object of 'nets.Net', .*"),
    ],
)
def test_what_holds_no_arrays_is_refused(tmp_path, content, reason):
    message = refusal(write_pth(tmp_path / "a.pth", content))
    assert message.startswith(f"expected a dict of tensors, got {reason.partition('.*')[0]}")
    assert message.endswith(reason.rpartition(".*")[2])


def _script(state, *, name="Net"):
    return Made(f"__torch__.nets.{name}", "Module", (), state)


def test_a_program_s_parameters_are_read_and_nothing_of_it_is_run(tmp_path):
    """Its text is not looked at, and may be compressed."""
    inner = _script({"weight": tensor(2 * ONES), "training": False}, name="Inner")
    content = _script({"training": True, "bias": tensor(ONES), "inner": inner, "size": 7})
    path = write_pth(tmp_path / "a.pt", content)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/code/__torch__/nets.py", "raise SystemExit\n" * 9999)
    arrays = read_state_dict(path)
    assert arrays.keys() == {"bias", "inner.weight"}
    np.testing.assert_array_equal(arrays["inner.weight"], 2 * ONES)


def test_modules_that_multiply_are_refused(tmp_path):
    """Each of forty holds the next one twice."""
    content = _script({"weight": tensor(ONES)})
    for _ in range(40):
        content = _script({"left": content, "right": content})
    assert "modules" in refusal(write_pth(tmp_path / "a.pt", content))


def test_torch_s_own_programs_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).half()
    torch.jit.script(layers).save(str(tmp_path / "a.pt"))
    arrays, expected = read_state_dict(tmp_path / "a.pt"), layers.state_dict()
    assert arrays.keys() == expected.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, expected[key].numpy())


@pytest.mark.parametrize(
    ("trained", "averaged"),
    [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("student", "teacher")],
)
def test_averages_are_taken_where_they_are_asked_for(tmp_path, caplog, trained, averaged):
    content = {averaged: {"a": tensor(2 * ONES)}, trained: {"a": tensor(ONES)}, "epoch": 1}
    path = write_pth(tmp_path / "a.pth", content)
    assert (read_state_dict(path)["a"] == 1).all()
    (record,) = caplog.records
    assert f"using {trained!r}, not the moving average {averaged!r}" in record.getMessage()
    assert (read_state_dict(path, average=True)["a"] == 2).all()
    assert len(caplog.records) == 1


def test_an_average_may_be_alone_or_torch_s_own_or_missing(tmp_path, caplog):
    path = write_pth(tmp_path / "a.pth", {"model_ema": {"state_dict": {"a": tensor(ONES)}}})
    assert read_state_dict(path).keys() == {"a"}
    assert "using the moving average 'model_ema'" in caplog.text
    counter = {"n_averaged": tensor(np.int64(3)), "module.a": tensor(ONES)}
    own = write_pth(tmp_path / "b.pth", {"model": counter})
    assert read_state_dict(own, average=True).keys() == counter.keys()
    without = write_pth(tmp_path / "c.pth", {"model": {"a": tensor(ONES)}})
    assert refusal(without, average=True).startswith("average: expected")


def test_what_contains_itself_ends(tmp_path):
    content = {"epoch": 1}
    content["model"] = content
    assert "expected a dict of tensors" in refusal(write_pth(tmp_path / "a.pth", content))


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    content = write_pth(tmp_path / "whole.pth", {"a": tensor(np.zeros(1000, np.float32))})
    content = content.read_bytes()
    legacy = write_pth(tmp_path / "old.pth", {"a": tensor(ONES)}, form="legacy").read_bytes()
    other = tmp_path / "other.pth"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a/b", "c")
    flipped = bytearray(content)
    flipped[content.index(bytes(100)) + 50] ^= 1
    for damaged in (
        b"",
        b"PK",
        content[:100],
        content[:-30],
        bytes(flipped),
        legacy[:-1],
        legacy[:40],
        other.read_bytes(),
        b"version https://git-lfs.github.com/spec/v1\n",
    ):
        path = tmp_path / "a.pth"
        path.write_bytes(damaged)
        assert "damaged" in refusal(path)


def test_a_pickle_s_numbers_take_no_memory_by_themselves(tmp_path):
    """A place in the memo, the length of a text, and a key that takes for ever to hash."""
    path = tmp_path / "a.pth"
    place = b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b"."
    text = b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a."
    key = b"\x80\x02}(" + b")" + b"2\x86" * 100 + b"Nu."
    for pickled in (place, text, key):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
        refusal(path)
