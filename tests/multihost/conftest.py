"""The tiny runs of tests/training, for several processes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

import pytest
from runs import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder of a few small images with void pixels."""
    return write_data(tmp_path_factory.mktemp("data"))
