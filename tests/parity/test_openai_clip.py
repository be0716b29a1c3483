"""CLIP with the weights of OpenAI's own code, by its names, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import drawn_variables

from segjax.models.clip import Clip
from segjax.models.clip_towers import ClipImageTower, ClipResNet, ClipTextTower
from segjax.models.layers import quick_gelu
from segjax.ops import cosine_similarity
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables import clip

SCRIPT = Path(__file__).parent / "golden" / "openai_clip.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("clip",)
SHARED = {"epsilon": 1e-5, "activation": quick_gelu}
EMBEDDING, SIZE = PEER["EMBEDDING"], PEER["SIZE"]
TEXT = functools.partial(
    ClipTextTower,
    PEER["TEXT_FEATURES"],
    PEER["TEXT_DEPTH"],
    PEER["TEXT_HEADS"],
    PEER["VOCABULARY"],
    PEER["LENGTH"],
    EMBEDDING,
    "end",
    **SHARED,
)
RESNET = functools.partial(ClipResNet, PEER["STAGES"], EMBEDDING, SIZE, PEER["WIDTH"])
VIT = functools.partial(
    ClipImageTower, PEER["FEATURES"], PEER["DEPTH"], 2, PEER["PATCH"], SIZE, EMBEDDING, **SHARED
)
MODELS = {"resnet": (RESNET, clip.CLIP_RESNET), "vit": (VIT, clip.CLIP_OPENAI)}


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_and_gradients(name, golden):
    image, table = MODELS[name]
    model = Clip(image, TEXT, dtype=jnp.float64, param_dtype=jnp.float64)
    images, ids = jnp.asarray(golden["images"]), golden["ids"]
    variables, _ = drawn_variables(model, table, images)

    def logits(params):
        outputs = model.apply(variables | {"params": params}, images, ids)
        scale = jnp.exp(outputs.logit_scale)
        return scale * cosine_similarity(outputs.image, outputs.text), outputs

    @jax.jit
    def run(params):
        gradient = jax.grad(lambda p: jnp.sum(logits(p)[0] * np.array(PEER["WEIGHTS"])))(params)
        return *logits(params), gradient

    found, outputs, gradient = run(variables["params"])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10)
    close(outputs.image, golden[f"{name} images"])
    close(outputs.text, golden[f"{name} text"])
    close(found, golden[f"{name} logits"])
    slopes = {
        key: np.vdot(array, np.cos(np.arange(array.size)))
        for key, array in to_state_dict(table, {"params": gradient}).items()
    }
    assert sorted(slopes) == golden[f"{name} keys"].tolist()
    expected = golden[f"{name} slopes"]
    close([slopes[key] for key in sorted(slopes)], expected, atol=1e-8 * np.abs(expected).max())
