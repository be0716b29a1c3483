"""DETR is Hugging Face's: boxes, masks, attention and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import drawn_variables

from segjax.models import AttentionMaskHead, Detr
from segjax.models.backbones.resnet import BasicBlock, ResNet
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables.detr import DETR_PANOPTIC

SCRIPT = Path(__file__).parent / "golden" / "transformers_detr.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("transformers", "timm")


@pytest.mark.slow
def test_outputs_attention_and_gradients(golden):
    model = Detr(
        PEER["CLASSES"],
        functools.partial(ResNet, (1, 1, 1, 1), BasicBlock),
        functools.partial(AttentionMaskHead, PEER["HEADS"]),
        num_queries=PEER["QUERIES"],
        features=PEER["FEATURES"],
        hidden_features=PEER["HIDDEN"],
        num_heads=PEER["HEADS"],
        encoder_layers=PEER["ENCODER_LAYERS"],
        decoder_layers=PEER["DECODER_LAYERS"],
        return_attention=True,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )
    images, where = jnp.asarray(golden["images"]), jnp.asarray(golden["where"])
    variables, weights = drawn_variables(model, DETR_PANOPTIC, images)

    def slope(array):
        return jnp.sum(array * jnp.cos(jnp.arange(array.size)).reshape(array.shape))

    @functools.partial(jax.grad, has_aux=True)
    def derive(params, statistics):
        variables = {"params": params, "batch_stats": statistics}
        output = model.apply(variables, images, where=where)
        last = (output.class_logits, output.boxes, output.mask_logits)
        return sum(map(slope, last)), output

    gradient, output = jax.jit(derive)(variables["params"], variables["batch_stats"])
    (first,) = output.auxiliary
    actual = {
        "logits": output.class_logits,
        "boxes": output.boxes,
        "masks": output.mask_logits[..., ::3, ::3],
        "first logits": first.class_logits,
        "first boxes": first.boxes,
        "decoder": output.attention[-1],
        "encoder": output.attention[0],
    }
    for name, array in actual.items():
        np.testing.assert_allclose(array, golden[name], rtol=1e-8, atol=1e-12, err_msg=name)
    assert first.mask_logits is None
    slopes = to_state_dict(DETR_PANOPTIC, {"params": gradient})
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"]]
    np.testing.assert_allclose(actual, golden["gradient"], rtol=1e-8)
