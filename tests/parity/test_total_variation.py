"""`total_variation` sums up to kornia's, and has its gradient, in float64."""

import runpy
from pathlib import Path

import jax
import numpy as np

from segjax.losses.weak import total_variation

SCRIPT = Path(__file__).parent / "golden" / "kornia_total_variation.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("kornia",)


def test_variation_and_gradient(golden):
    variations = total_variation(golden["image"]).sum((0, 1))
    gradient = jax.grad(lambda image: total_variation(image).sum())(golden["image"])
    np.testing.assert_allclose(variations, golden["variations"], atol=1e-12)
    np.testing.assert_allclose(gradient, golden["gradient"], atol=1e-12)
