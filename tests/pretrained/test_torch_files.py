"""torch's own files: read as torch reads them, and never run."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from segjax.pretrained import WeightsError
from segjax.pretrained.files import read_state_dict

torch = pytest.importorskip("torch")


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_arrays_are_torch_s(tmp_path, dtype, form):
    tensor = torch.arange(6, dtype=getattr(torch, dtype)).reshape(2, 3).T
    content = {"state_dict": {"a": tensor, "count": torch.tensor(3)}, "epoch": 7}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=form == "zip")
    read = read_state_dict(tmp_path / "a.pth")
    assert read.keys() == {"a", "count"}
    assert read["a"].dtype.name == dtype
    np.testing.assert_array_equal(read["a"].astype(float), tensor.double().numpy())
    assert read["count"] == 3


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_no_code_in_a_file_is_run(tmp_path, form):
    path, trap = tmp_path / "a.pth", tmp_path / "trap"
    content = {"a": torch.zeros(2), "b": Hostile(trap)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"b": Hostile(trap)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"a\.pth: ") as raised:
        read_state_dict(path)
    assert "\n" not in str(raised.value)
    assert not trap.exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": torch.zeros(2), "b": "text"}])
def test_what_holds_no_arrays_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: .*due"):
        read_state_dict(tmp_path / "a.pth")


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    whole, path = tmp_path / "whole.pth", tmp_path / "a.pth"
    torch.save({"a": torch.zeros(1000)}, whole)
    content = whole.read_bytes()
    other = tmp_path / "other.pth"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a/b", "c")
    for damaged in (
        b"",
        b"PK",
        content[:100],
        content[:-30],
        other.read_bytes(),
    ):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"a\.pth: ") as raised:
            read_state_dict(path)
        assert "\n" not in str(raised.value)
