"""FCN and DeepLabV3 are torchvision's: outputs, running statistics and gradients, in float64."""

import runpy
from pathlib import Path

import jax.numpy as jnp
import pytest
from dense import assert_same_record, record_ours

from segjax.models import create
from segjax.pretrained.tables import torchvision as tables

SCRIPT = Path(__file__).parent / "golden" / "torchvision_dense.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torchvision",)
TABLES = {"fcn_resnet50": tables.FCN_RESNET, "deeplabv3_resnet50": tables.DEEPLABV3_RESNET}


@pytest.mark.slow
@pytest.mark.parametrize("name", PEER["KEYS"])
def test_outputs_statistics_and_gradients(golden, name):
    model = create(name, PEER["CLASSES"], dtype=jnp.float64, param_dtype=jnp.float64)
    actual = record_ours(model, TABLES[name], golden["images"], PEER["KEYS"][name])
    assert_same_record(actual, golden, name)
