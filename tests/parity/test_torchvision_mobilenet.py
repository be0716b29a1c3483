"""What stands on MobileNetV3 is torchvision's: outputs, statistics and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import assert_same_record, drawn_variables, record_ours

from segjax.models import LRASPP, create
from segjax.models.backbones import MobileNetV3
from segjax.models.backbones.mobilenet_v3 import LARGE, SMALL
from segjax.pretrained.tables import mobilenet

SCRIPT = Path(__file__).parent / "golden" / "torchvision_mobilenet.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torchvision",)
FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
BLOCKS = tuple(LARGE[i] for i in PEER["BLOCKS"])
# The derivative of torch's hard sigmoid is 1/6 in float32, which is 3e-8 too much.
GRADIENT_RTOL = 1e-7


def _lraspp(blocks):
    return LRASPP(PEER["CLASSES"], functools.partial(MobileNetV3, blocks), **FLOAT64)


@pytest.mark.slow
def test_outputs_statistics_and_gradients(golden):
    model, table = _lraspp(BLOCKS), mobilenet.lraspp(BLOCKS)
    actual = record_ours(model, table, golden["images"], PEER["KEYS"])
    assert_same_record(actual, golden, "lraspp", gradient_rtol=GRADIENT_RTOL)


def test_small(golden):
    model = _lraspp(SMALL)
    variables, _ = drawn_variables(model, mobilenet.lraspp(SMALL), golden["images"])
    output = jax.jit(model.apply)(variables, golden["images"])
    _assert_every_fourth(output.logits, golden["small logits"])


@pytest.mark.slow
def test_large_below_deeplabv3(golden):
    model = create("deeplabv3_mobilenet_v3_large", PEER["CLASSES"], **FLOAT64)
    variables, _ = drawn_variables(model, mobilenet.DEEPLABV3_MOBILENET, golden["images"])
    output = jax.jit(model.apply)(variables, golden["images"])
    _assert_every_fourth(output.logits, golden["large logits"])
    _assert_every_fourth(output.auxiliary[0], golden["large auxiliary"])


def _assert_every_fourth(actual, expected):
    np.testing.assert_allclose(actual[:, ::4, ::4], expected, rtol=1e-8)
