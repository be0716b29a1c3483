"""Hausdorff and centre-line losses have MONAI's values and gradients."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses import cldice_loss, hausdorff_loss
from segjax.ops import soft_skeleton

SCRIPT = Path(__file__).parent / "golden" / "monai_boundaries.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("monai",)
ITERATIONS = PEER["ITERATIONS"]


def _compare(golden, name, function, tolerance):
    """The values of a function of the soft masks, one a mask, and the gradient of their sum."""

    def total(probs):
        values = function(probs)
        return values.sum(), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(golden["probs"]))
    np.testing.assert_allclose(values, golden[name], rtol=tolerance)
    np.testing.assert_allclose(gradient, golden[f"{name}_gradient"], rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize(("name", "alpha"), [("hausdorff", 2.0), ("hausdorff_1", 1.0)])
def test_hausdorff(golden, name, alpha):
    """MONAI gives the mean over a picture. Its distances, as ours, are float32."""

    def of_picture(probs):
        targets = jnp.asarray(golden["targets"])
        return hausdorff_loss(probs, targets, alpha=alpha).mean(axis=(-2, -1))

    _compare(golden, name, of_picture, 1e-6)


def test_skeleton(golden):
    def weighted(probs):
        return soft_skeleton(probs, iterations=ITERATIONS) * golden["weights"]

    skeleton = golden["skeleton"] * golden["weights"]
    _compare({**golden, "skeleton": skeleton}, "skeleton", weighted, 1e-9)


def test_cldice(golden):
    def of_picture(probs):
        targets = jnp.asarray(golden["targets"])
        return cldice_loss(probs, targets, iterations=ITERATIONS, smooth=1.0)

    _compare(golden, "cldice", of_picture, 1e-9)
