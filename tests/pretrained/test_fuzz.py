"""Files with bytes changed at random: read as they are or refused in one line, in little memory."""

import struct
import tracemalloc

import numpy as np
import pytest
from pth import Made, Name, tensor, write_pth

from segjax.pretrained import WeightsError
from segjax.pretrained.files import read_state_dict, write_safetensors

FILES = 300  # of each kind
ARRAYS = {f"layer{i}.weight": np.arange(6, dtype=np.float32).reshape(2, 3) for i in range(4)}


def _safetensors(path):
    write_safetensors(ARRAYS, path, metadata={"model": "a"})
    return path.read_bytes()


def _torch(path, form):
    content = {
        "state_dict": {key: tensor(array) for key, array in ARRAYS.items()},
        "args": Made("argparse", "Namespace", (Name("a", "b"),), {"lr": [0.1, 2**40, None, True]}),
    }
    return write_pth(path, content, form=form).read_bytes()


def _mutated(rng, content):
    """Bytes flipped, set, doubled, dropped, or overwritten by numbers that break bounds."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(0, len(content)))
        match rng.integers(0, 6):
            case 0:
                content[place] ^= 1 << int(rng.integers(0, 8))
            case 1:
                content[place] = int(rng.integers(0, 256))
            case 2:
                content[place:place] = content[place : place + int(rng.integers(1, 40))]
            case 3:
                del content[place : place + int(rng.integers(1, 40))]
            case 4:
                number = rng.choice([0, 2**31, 2**32 - 1, 2**62])
                content[place : place + 8] = struct.pack("<Q", number)
            case 5:  # a shape or an offset in a header of safetensors
                content[place:] = content[place:].replace(b"[", b"[1000000000000", 1)
        content = content or bytearray(b"a")
    return bytes(content)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path, kind):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    whole = _safetensors(path) if kind == "safetensors" else _torch(path, kind)
    rng = np.random.default_rng(0)
    refusals = []
    tracemalloc.start()
    for _ in range(FILES):
        content = _mutated(rng, whole)
        path.write_bytes(content)
        try:
            arrays = read_state_dict(path)
        except WeightsError as error:
            refusals.append(str(error))
        else:
            assert all(array.nbytes <= len(content) for array in arrays.values())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert 0 < len(refusals) < FILES
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in refusals)
