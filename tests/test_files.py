"""Files are written whole, or not at all."""

import resource

import numpy as np
import pytest

from segjax import viz
from segjax.data import Classes
from segjax.files import write_file


def _write(path):
    write_file(path, "x" * 1000)


def _draw_curves(path):
    log = path.with_name("log")
    log.write_text('{"step": 1, "loss": 0.5}\n')
    viz.training_curves(log, path=path)
    log.unlink()


def _draw_confusion(path):
    classes = Classes(("sky", "road"), ((0, 0, 0), (1, 1, 1)))
    viz.draw_confusion(np.eye(2, dtype=np.int64), classes, path=path)


def _save_image(path):
    viz.save_image(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("write", [_write, _draw_curves, _draw_confusion, _save_image])
def test_a_full_disk_leaves_what_was_there(write, tmp_path):
    path = tmp_path / "file.png"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # bytes that a file may have
    try:
        with pytest.raises(OSError, match="file"):
            write(path)
        assert not path.exists()
        path.write_bytes(b"before")
        with pytest.raises(OSError, match="file"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"before"
    assert not path.with_name("file.png.draft").exists()
