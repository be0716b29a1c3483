"""SegFormer is Hugging Face's: outputs, attention, running statistics and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from dense import drawn_variables, without_dropout
from flax import linen as nn

from segjax.models import SegFormer
from segjax.models.backbones import MixTransformer
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables.segformer import SEGFORMER

SCRIPT = Path(__file__).parent / "golden" / "transformers_segformer.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("transformers",)


def test_outputs_attention_statistics_and_gradients(golden):
    float64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    backbone = functools.partial(MixTransformer, PEER["WIDTHS"], PEER["STAGE_SIZES"])
    options = {"features": PEER["FEATURES"], "return_attention": True, **float64}
    model = SegFormer(PEER["CLASSES"], backbone, **options)
    images = jnp.asarray(golden["images"])
    variables, weights = drawn_variables(model, SEGFORMER, images)

    def objective(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        with nn.intercept_methods(without_dropout):
            output, changed = model.apply(variables, images, train=True, mutable=["batch_stats"])
        cosines = jnp.cos(jnp.arange(output.logits.size)).reshape(output.logits.shape)
        return jnp.sum(output.logits * cosines), changed

    @jax.jit
    def run(variables):
        gradient, changed = jax.grad(objective, has_aux=True)(
            variables["params"], variables["batch_stats"]
        )
        return model.apply(variables, images), gradient, changed

    output, gradient, changed = run(variables)
    np.testing.assert_allclose(output.logits, golden["logits"], rtol=1e-8)
    assert len(output.attention) == sum(PEER["STAGE_SIZES"])
    for i, attention in enumerate(output.attention):
        np.testing.assert_allclose(attention[..., ::16, :], golden[f"attention {i}"], rtol=1e-5)

    slopes = to_state_dict(SEGFORMER, {"params": gradient})
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"]]
    np.testing.assert_allclose(actual, golden["gradient"], rtol=1e-8)
    for statistic in ("mean", "var"):
        running = changed["batch_stats"]["norm"][statistic]
        np.testing.assert_allclose(running, golden[statistic], rtol=1e-8)
