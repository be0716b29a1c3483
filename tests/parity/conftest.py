"""The peers' numbers: a script beside each test module's golden file made them, in float64."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

# For what the tests share: `dense.py`, `weights.py`.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module", params=["stored", "live"])
def golden(request):
    """The arrays of the module's `SCRIPT`: its file, or a fresh draw where its `PEERS` are."""
    module = request.module
    if request.param == "stored":
        with np.load(module.SCRIPT.with_suffix(".npz")) as file:
            return dict(file)
    for peer in module.PEERS:
        pytest.importorskip(peer)
    return module.PEER["golden"](seed=1)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield
