"""CLIPSeg with the weights of Hugging Face's, by their names, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import drawn_variables

from segjax.models import Clip, ClipSeg
from segjax.models.clip_towers import ClipImageTower, ClipTextTower
from segjax.models.layers import quick_gelu
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables import clip

SCRIPT = Path(__file__).parent / "golden" / "hf_clipseg.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("transformers",)
SHARED = {"epsilon": 1e-5, "activation": quick_gelu}
SIZES = PEER["FEATURES"], PEER["DEPTH"], PEER["HEADS"]
CLIP = functools.partial(
    Clip,
    functools.partial(
        ClipImageTower, *SIZES, PEER["PATCH"], PEER["SIZE"], PEER["EMBEDDING"], **SHARED
    ),
    functools.partial(
        ClipTextTower,
        *SIZES,
        PEER["VOCABULARY"],
        PEER["LENGTH"],
        PEER["EMBEDDING"],
        "end",
        **SHARED,
    ),
)


@pytest.mark.parametrize("name", PEER["MODELS"])
def test_logits_and_gradients(name, golden):
    """Of each image with its own text or image prompt, as the original pairs them."""
    model = ClipSeg(
        CLIP,
        PEER["REDUCED"],
        PEER["BLOCKS"],
        PEER["REDUCED_HEADS"],
        PEER["HIDDEN"],
        refined=name == "refined",
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )
    table = clip.CLIPSEG if name == "plain" else clip.CLIPSEG_REFINED
    images, ids, prompts = (jnp.asarray(golden[key]) for key in ("images", "ids", "prompts"))
    variables, _ = drawn_variables(model, table, images)

    def paired(logits):
        return jnp.stack([logits[i, ..., i] for i in range(len(logits))])

    def objective(variables):
        logits = paired(model.apply(variables, images, ids).logits)
        return jnp.sum(logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)), logits

    @jax.jit
    def run(variables):
        gradient, by_text = jax.grad(objective, has_aux=True)(variables)
        embeddings = model.apply(variables, prompts, method="encode_image")
        by_image = model.apply(variables, images, embeddings, method="segment").logits
        return by_text, paired(by_image), gradient

    by_text, by_image, gradient = run(variables)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10)
    close(by_text, golden[f"{name} text"])
    close(by_image, golden[f"{name} image"])
    slopes = {
        key: np.vdot(array, np.cos(np.arange(array.size)))
        for key, array in to_state_dict(table, gradient).items()
        if key.startswith("decoder")
    }
    assert sorted(slopes) == golden[f"{name} keys"].tolist()
    expected = golden[f"{name} slopes"]
    close([slopes[key] for key in sorted(slopes)], expected, atol=1e-8 * np.abs(expected).max())
