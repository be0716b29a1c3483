"""CLIP and SigLIP with the weights of Hugging Face's, by their names, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import drawn_variables

from segjax.models.clip import _ACTIVATIONS, Clip
from segjax.models.clip_towers import ClipImageTower, ClipTextTower
from segjax.ops.similarity import cosine_similarity, normalize
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables import clip

SCRIPT = Path(__file__).parent / "golden" / "hf_clip.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("transformers",)


def _model(name):
    is_clip = name.startswith("CLIP")
    size = PEER["FEATURES"], PEER["DEPTH"], PEER["HEADS"]
    shared = {
        "epsilon": 1e-5 if is_clip else 1e-6,
        "activation": _ACTIVATIONS[PEER["MODELS"][name]],
    }
    image = functools.partial(
        ClipImageTower,
        *size,
        PEER["PATCH"],
        PEER["SIZE"],
        PEER["EMBEDDING"] if is_clip else None,
        **shared,
    )
    text = functools.partial(
        ClipTextTower,
        *size,
        PEER["VOCABULARY"],
        PEER["LENGTH"],
        PEER["EMBEDDING"] if is_clip else PEER["FEATURES"],
        "end" if is_clip else "last",
        **shared,
    )
    float64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    return Clip(image, text, bias=not is_clip, **float64)


@pytest.mark.parametrize("name", PEER["MODELS"])
def test_embeddings_states_and_gradients(name, golden):
    model, table = _model(name), clip.CLIP if name.startswith("CLIP") else clip.SIGLIP
    ids, images = golden["ids"], jnp.asarray(golden["images"])
    variables, _ = drawn_variables(model, table, images)

    def logits(variables):
        outputs = model.apply(variables, images, ids)
        cosines = cosine_similarity(outputs.image, outputs.text)
        return jnp.exp(outputs.logit_scale) * cosines + outputs.logit_bias, outputs

    def towers(module, images, ids):
        return module.image_tower(images)["states"], module.text_tower(ids)["states"]

    @jax.jit
    def run(variables):
        gradient = jax.grad(lambda v: jnp.sum(logits(v)[0] * np.array(PEER["WEIGHTS"])))(variables)
        states = model.apply(variables, images, ids, method=towers)
        large = model.apply(variables, golden["large"], method="encode_image")
        return *logits(variables), gradient, states, large

    found, outputs, gradient, states, large = run(variables)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10)
    close(found, golden[f"{name} logits"])
    close(normalize(outputs.image), golden[f"{name} images"])
    close(normalize(outputs.text), golden[f"{name} text"])
    close(normalize(large), golden[f"{name} large"])
    for tower, ours in zip(("vision", "text"), states, strict=True):
        close(jnp.stack(ours), golden[f"{name} {tower} states"])
    slopes = {
        key: np.vdot(array, np.cos(np.arange(array.size)))
        for key, array in to_state_dict(table, gradient).items()
    }
    assert sorted(slopes) == golden[f"{name} keys"].tolist()
    expected = golden[f"{name} slopes"]
    close([slopes[key] for key in sorted(slopes)], expected, atol=1e-8 * np.abs(expected).max())
