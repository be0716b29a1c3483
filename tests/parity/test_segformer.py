"""SegFormer is Hugging Face's: outputs, attention, running statistics and gradients, in float64."""

import functools
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

sys.path.insert(0, str(Path(__file__).parent))
from weights import draw_state_dict

from segjax.models import SegFormer
from segjax.models.backbones import MixTransformer
from segjax.pretrained.keys import to_state_dict, to_variables
from segjax.pretrained.tables.segformer import SEGFORMER

SCRIPT = Path(__file__).parent / "golden" / "transformers_segformer.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("transformers",)


def _without_dropout(next_function, args, kwargs, context):
    return args[0] if isinstance(context.module, nn.Dropout) else next_function(*args, **kwargs)


def _drawn(model, table, images):
    """The model's variables with the weights of the original's keys."""
    template = jax.eval_shape(model.init, jax.random.key(0), images)
    keys = to_state_dict(table, jax.tree.map(lambda s: np.broadcast_to(0.0, s.shape), template))
    return to_variables(table, draw_state_dict({k: v.shape for k, v in keys.items()}), template)


def test_outputs_attention_statistics_and_gradients(golden):
    float64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    backbone = functools.partial(MixTransformer, PEER["WIDTHS"], PEER["STAGE_SIZES"])
    options = {"features": PEER["FEATURES"], "return_attention": True, **float64}
    model = SegFormer(PEER["CLASSES"], backbone, **options)
    images = jnp.asarray(golden["images"])
    variables = _drawn(model, SEGFORMER, images)

    def objective(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        with nn.intercept_methods(_without_dropout):
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

    weights = to_state_dict(SEGFORMER, variables)
    slopes = to_state_dict(SEGFORMER, {"params": gradient})
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"]]
    np.testing.assert_allclose(actual, golden["gradient"], rtol=1e-8)
    for statistic in ("mean", "var"):
        running = changed["batch_stats"]["norm"][statistic]
        np.testing.assert_allclose(running, golden[statistic], rtol=1e-8)
