"""DeepLabV3+ is segmentation-models-pytorch's: outputs, statistics and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import assert_same_record, drawn_variables, record_ours

from segjax.models import DeepLabV3Plus
from segjax.models.backbones import BasicBlock, Bottleneck, ResNet
from segjax.pretrained.tables.smp import DEEPLABV3PLUS_RESNET

SCRIPT = Path(__file__).parent / "golden" / "smp_deeplab.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("segmentation_models_pytorch",)


def _model(block):
    backbone = functools.partial(ResNet, PEER["STAGE_SIZES"], block, dilate_first=True)
    return DeepLabV3Plus(PEER["CLASSES"], backbone, dtype=jnp.float64, param_dtype=jnp.float64)


@pytest.mark.slow
def test_outputs_statistics_and_gradients(golden):
    actual = record_ours(_model(BasicBlock), DEEPLABV3PLUS_RESNET, golden["images"], PEER["KEYS"])
    assert_same_record(actual, golden, "basic")


def test_bottlenecks(golden):
    model = _model(Bottleneck)
    variables, _ = drawn_variables(model, DEEPLABV3PLUS_RESNET, golden["images"])
    logits = jax.jit(model.apply)(variables, golden["images"]).logits
    np.testing.assert_allclose(logits[:, ::4, ::4], golden["bottleneck logits"], rtol=1e-8)
