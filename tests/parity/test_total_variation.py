"""`total_variation` sums up to kornia's, and has its gradient, in float64."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from segjax.losses.weak import total_variation

SCRIPT = Path(__file__).parent / "golden" / "kornia_total_variation.py"
PEER = runpy.run_path(str(SCRIPT))


def _stored():
    with np.load(SCRIPT.with_suffix(".npz")) as file:
        return dict(file)


def _live():
    pytest.importorskip("kornia")
    return PEER["golden"](seed=1)


@pytest.mark.parametrize("golden", [_stored, _live], ids=["stored", "live"])
def test_variation_and_gradient(golden):
    arrays = golden()
    with jax.enable_x64(True):
        variations = total_variation(arrays["image"]).sum((0, 1))
        gradient = jax.grad(lambda image: total_variation(image).sum())(arrays["image"])
    np.testing.assert_allclose(variations, arrays["variations"], atol=1e-12)
    np.testing.assert_allclose(gradient, arrays["gradient"], atol=1e-12)
