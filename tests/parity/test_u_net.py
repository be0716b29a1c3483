"""U-Nets are milesial's and segmentation-models-pytorch's: outputs, statistics and gradients."""

import runpy
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from dense import record_ours

from segjax.models import unet, unet_resnet18
from segjax.pretrained.tables.u_net import UNET, UNET_RESNET

SCRIPT = Path(__file__).parent / "golden" / "torch_u_net.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("segmentation_models_pytorch",)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEER["KEYS"])
def test_outputs_statistics_and_gradients(golden, name):
    options = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    if name == "unet_resnet18":
        model, table = unet_resnet18(PEER["CLASSES"], **options), UNET_RESNET
    else:
        options |= {"widths": PEER["WIDTHS"], "upsampling": name}
        model, table = unet(PEER["CLASSES"], **options), UNET
    record = record_ours(model, table, jnp.asarray(golden["images"]), PEER["KEYS"][name])
    for key, actual in record.items():
        np.testing.assert_allclose(actual, golden[f"{name} {key}"], rtol=1e-8, atol=1e-10)
