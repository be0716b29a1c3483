"""Our vision transformers with the weights of Hugging Face's, by their names, in float64."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from dense import drawn_variables

from segjax.models.backbones import VisionTransformer
from segjax.pretrained.tables.vit import DINOV2_TRANSFORMERS, VIT_TRANSFORMERS

SCRIPT = Path(__file__).parent / "golden" / "transformers_vit.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("transformers",)
# By the peer's name: the table, and the options of ours.
MODELS = {
    "ViT": (VIT_TRANSFORMERS, {"epsilon": 1e-12}),
    "DeiT": (VIT_TRANSFORMERS, {"epsilon": 1e-12, "distilled": True}),
    "Dinov2WithRegisters": (DINOV2_TRANSFORMERS, {"registers": 4, "layer_scale": 1.0}),
}


def test_tokens(golden):
    images = jnp.asarray(golden["images"])
    models, variables = {}, {}
    for name, (table, options) in MODELS.items():
        models[name] = VisionTransformer(
            PEER["FEATURES"],
            PEER["DEPTH"],
            PEER["HEADS"],
            patch_size=PEER["PATCH"],
            image_size=PEER["SIZE"],
            dtype=jnp.float64,
            param_dtype=jnp.float64,
            **options,
        )
        variables[name], _ = drawn_variables(models[name], table, images)

    @jax.jit
    def apply(variables):
        return {name: model.apply(variables[name], images) for name, model in models.items()}

    for name, output in apply(variables).items():
        np.testing.assert_allclose(output["tokens"], golden[name], rtol=1e-8, err_msg=name)
