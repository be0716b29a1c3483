"""Mask2Former is Hugging Face's: outputs of every layer, and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from dense import drawn_variables

from segjax.models import Mask2Former
from segjax.models.backbones import SwinTransformer
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables.mask2former import MASK2FORMER_SWIN

SCRIPT = Path(__file__).parent / "golden" / "transformers_mask2former.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("transformers",)


def _model():
    backbone = functools.partial(
        SwinTransformer,
        PEER["SWIN_FEATURES"],
        PEER["SWIN_STAGES"],
        head_features=PEER["SWIN_FEATURES"],
        window_size=PEER["WINDOW"],
    )
    return Mask2Former(
        PEER["CLASSES"],
        backbone,
        num_queries=PEER["QUERIES"],
        features=PEER["FEATURES"],
        num_heads=PEER["HEADS"],
        encoder_layers=PEER["ENCODER_LAYERS"],
        decoder_layers=PEER["DECODER_LAYERS"],
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )


def test_outputs_of_every_layer_and_gradients(golden):
    model = _model()
    images = jnp.asarray(golden["images"])
    variables, weights = drawn_variables(model, MASK2FORMER_SWIN, images)

    def along(values):
        return jnp.sum(values * jnp.cos(jnp.arange(values.size)).reshape(values.shape))

    def objective(params):
        output = model.apply({"params": params}, images)
        layers = [*output.auxiliary, output]
        classes = jnp.stack([layer.class_logits for layer in layers])
        masks = jnp.stack([layer.mask_logits for layer in layers])
        return along(classes) + along(masks), (classes, masks)

    gradient, (classes, masks) = jax.jit(jax.grad(objective, has_aux=True))(variables["params"])
    np.testing.assert_allclose(classes, golden["classes"], rtol=1e-8)
    np.testing.assert_allclose(masks[..., ::3, ::3], golden["masks"], rtol=1e-8, atol=1e-10)
    slopes = to_state_dict(MASK2FORMER_SWIN, {"params": gradient})
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"]]
    np.testing.assert_allclose(actual, golden["gradient"], rtol=1e-8)
