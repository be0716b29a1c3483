"""Segmenter and the ViTs are the originals': outputs, attention and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights import draw_state_dict

from segjax.models import Segmenter
from segjax.models.backbones import VisionTransformer
from segjax.models.backbones.vit import resize_bicubic, resize_with_offset
from segjax.ops import resize
from segjax.pretrained.keys import to_state_dict, to_variables
from segjax.pretrained.tables import vit as tables

SCRIPT = Path(__file__).parent / "golden" / "timm_vit.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "timm")
FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
OPTIONS = {
    "mask": {"num_classes": 7, "epsilon": 1e-5, "resize": resize},
    "distilled": {"num_classes": 7, "distilled": True, "resize": resize_bicubic},
    "dinov2": {"layer_scale": 1e-5, "resize": resize_with_offset},
    "registers": {"layer_scale": 1e-5, "registers": 4, "resize": resize_bicubic},
}
TABLES = {
    "mask": tables.SEGMENTER_MASK,
    "distilled": tables.VIT,
    "dinov2": tables.DINOV2,
    "registers": tables.DINOV2,
}


def _model(name):
    patch, image = PEER["SIDES"][name]
    size = {"patch_size": patch, "image_size": image}
    vit = functools.partial(
        VisionTransformer, PEER["WIDTH"], PEER["DEPTH"], PEER["HEADS"], **size, **OPTIONS[name]
    )
    if name == "mask":
        return Segmenter(PEER["CLASSES"], vit, return_attention=True, **FLOAT64)
    return vit(**FLOAT64)


def _drawn(name, images):
    """The model's variables with the weights of the original's keys."""
    template = jax.eval_shape(_model(name).init, jax.random.key(0), images)
    keys = to_state_dict(
        TABLES[name], jax.tree.map(lambda s: np.broadcast_to(0.0, s.shape), template)
    )
    drawn = draw_state_dict({k: v.shape for k, v in keys.items()})
    return to_variables(TABLES[name], drawn, template)


@functools.partial(jax.jit, static_argnums=0)
def _run(name, variables, images):
    """The outputs, and the gradient of a weighted sum of them, no two weights alike."""

    def objective(variables):
        results = _model(name).apply(variables, images)
        if name == "mask":
            outputs = {"output": results.logits, "attention": results.attention[-1]}
        else:
            outputs = {"output": results["tokens"], "middle": results["stage2"]}
        output = outputs["output"]
        total = jnp.sum(output * jnp.cos(jnp.arange(output.size)).reshape(output.shape))
        if name == "distilled":
            outputs["classes"] = results["classes"]
            total += jnp.sum(results["classes"])
        return total, outputs

    return jax.grad(objective, has_aux=True)(variables)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEER["KEYS"])
def test_outputs_and_gradients(golden, name):
    images = jnp.asarray(golden["images"])
    variables = _drawn(name, images)
    gradient, outputs = _run(name, variables, images)
    pixels = (slice(None), slice(None, None, 4), slice(None, None, 4))
    kept = {
        "output": pixels if name == "mask" else (..., slice(None, None, 8)),
        "middle": (..., slice(None, None, 8)),
    }
    for output, value in outputs.items():
        if f"{name} {output}" in golden:
            ours, theirs = value[kept.get(output, ...)], golden[f"{name} {output}"]
            np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=1e-8, atol=1e-12)
    weights = to_state_dict(TABLES[name], variables)
    slopes = to_state_dict(TABLES[name], gradient)
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"][name]]
    np.testing.assert_allclose(actual, golden[f"{name} gradient"], rtol=1e-8)
