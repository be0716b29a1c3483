"""MaskFormer and Swin are Hugging Face's: outputs and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from dense import drawn_variables

from segjax.models import MaskFormer
from segjax.models.backbones import SwinTransformer
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables.maskformer import MASKFORMER_SWIN

SCRIPT = Path(__file__).parent / "golden" / "transformers_maskformer.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "transformers")


def _model():
    swin, decoder = PEER["SWIN"], PEER["DECODER"]
    backbone = functools.partial(
        SwinTransformer,
        swin["embed_dim"],
        swin["depths"],
        head_features=swin["embed_dim"] // swin["num_heads"][0],
        window_size=swin["window_size"],
    )
    return MaskFormer(
        PEER["CLASSES"],
        backbone,
        num_queries=decoder["num_queries"],
        features=decoder["d_model"],
        hidden_features=decoder["decoder_ffn_dim"],
        num_heads=PEER["HEADS"],
        decoder_layers=decoder["decoder_layers"],
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )


def _features(model, variables, images):
    """The outputs of MaskFormer, and the features within."""
    is_backbone = lambda module, _: isinstance(module, SwinTransformer)
    output, state = model.apply(variables, images, capture_intermediates=is_backbone)
    return output, state["intermediates"]["backbone"]["__call__"][0]


def test_outputs_and_gradients(golden):
    model, images = _model(), jnp.asarray(golden["images"])
    variables, weights = drawn_variables(model, MASKFORMER_SWIN, images)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(variables):
        output, features = _features(model, variables, images)
        (first,) = output.auxiliary
        outputs = {
            "classes": output.class_logits,
            "masks": output.mask_logits,
            "auxiliary classes": first.class_logits,
            "auxiliary masks": first.mask_logits,
        }
        total = sum(
            jnp.sum(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)) for x in outputs.values()
        )
        return total, outputs | {f"stage{i}": features[f"stage{i}"] for i in range(1, 5)}

    gradient, outputs = run(variables)
    for name, array in outputs.items():
        np.testing.assert_allclose(array, golden[name], rtol=1e-8, atol=1e-12, err_msg=name)
    slopes = to_state_dict(MASKFORMER_SWIN, gradient)
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"]]
    np.testing.assert_allclose(actual, golden["gradient"], rtol=1e-8)
