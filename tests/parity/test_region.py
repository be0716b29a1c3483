"""Region losses have the values and gradients of torch's libraries, in float64."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses

SCRIPT = Path(__file__).parent / "golden" / "torch_region.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = (
    "torch",
    "monai",
    "segmentation_models_pytorch",
    "kornia",
)


@pytest.mark.parametrize("case", PEER["CASES"])
def test_value_and_gradient(golden, case):
    name, options = PEER["CASES"][case]
    targets = golden["labels"][..., None] == np.arange(3)

    def mean_loss(logits):
        return getattr(losses, name)(jax.nn.softmax(logits), targets, **options).mean()

    loss, gradient = jax.value_and_grad(mean_loss)(jnp.asarray(golden["logits"]))
    np.testing.assert_allclose(loss, golden[f"{case}_loss"], atol=1e-12)
    # 1e-10: MONAI's class weights are float32.
    np.testing.assert_allclose(gradient, golden[f"{case}_gradient"], atol=1e-10)
