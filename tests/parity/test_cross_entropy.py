"""`softmax_cross_entropy` has torch's values, weighted means and gradients, in float64."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses import pixel_weights, softmax_cross_entropy

SCRIPT = Path(__file__).parent / "golden" / "torch_cross_entropy.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch",)


@pytest.mark.parametrize(("i", "case"), list(enumerate(PEER["CASES"])), ids=str)
def test_values_mean_and_gradient(golden, i, case):
    soft, weighted, label_smoothing = case
    labels = jnp.asarray(golden["soft_labels" if soft else "labels"])
    class_weights = jnp.asarray(golden["class_weights"]) if weighted else None
    where = None if soft else labels != 255

    def losses(logits):
        return softmax_cross_entropy(
            logits,
            labels,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            where=where,
        )

    logits = jnp.asarray(golden["logits"])
    np.testing.assert_allclose(losses(logits), golden[f"{i}_losses"], atol=1e-12)
    gradient = jax.grad(lambda logits: losses(logits).sum())(logits)
    np.testing.assert_allclose(gradient, golden[f"{i}_gradient"], atol=1e-12)
    if not soft:  # torch divides soft labels by the number of pixels, whatever their weights
        ones = jnp.ones(logits.shape[-1])
        weights = pixel_weights(labels, class_weights if weighted else ones, where=where)
        mean = losses(logits).sum() / weights.sum()
        np.testing.assert_allclose(mean, golden[f"{i}_mean"], atol=1e-12)
