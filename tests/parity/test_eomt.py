"""EoMT is Hugging Face's: outputs with and without masks, and gradients, in float64."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import drawn_variables

from segjax.models import EoMT
from segjax.pretrained.keys import to_state_dict
from segjax.pretrained.tables.eomt import EOMT, EOMT_DINOV3

SCRIPT = Path(__file__).parent / "golden" / "transformers_eomt.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "transformers")
BLOCKS = PEER["QUERY_BLOCKS"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), [("dinov2", EOMT), ("dinov3", EOMT_DINOV3)])
def test_outputs_and_gradients(name, table, golden):
    model = EoMT(
        PEER["CLASSES"],
        PEER["FEATURES"],
        PEER["DEPTH"],
        PEER["HEADS"],
        num_queries=PEER["QUERIES"],
        query_blocks=BLOCKS,
        image_size=PEER["SIDE"],
        registers=PEER["REGISTERS"],
        rotary=name == "dinov3",
        rescale=1.0,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )
    images = jnp.asarray(golden["images"])
    variables, weights = drawn_variables(model, table, images)

    def apply(params, mask_probs, **options):
        annealing = {"mask_probs": mask_probs}
        return model.apply({"params": params, "annealing": annealing}, images, **options)

    def along(values):
        return jnp.sum(values * jnp.cos(jnp.arange(values.size)).reshape(values.shape))

    def objective(params):
        rngs = {"dropout": jax.random.key(0)}
        output = apply(params, jnp.ones(BLOCKS), train=True, rngs=rngs)
        predictions = [*output.auxiliary, output]
        classes = jnp.stack([x.class_logits for x in predictions])
        masks = jnp.stack([x.mask_logits for x in predictions])
        return along(classes) + along(masks), (classes, masks)

    gradient, (classes, masks) = jax.jit(jax.grad(objective, has_aux=True))(variables["params"])
    np.testing.assert_allclose(classes, golden[f"{name} classes"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(masks[..., ::3, ::3], golden[f"{name} masks"], rtol=1e-8, atol=1e-12)
    slopes = to_state_dict(table, {"params": gradient})
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"][name]]
    # A slope is a sum of numbers up to a hundred: one that almost cancels keeps their rounding.
    np.testing.assert_allclose(actual, golden[f"{name} gradient"], rtol=1e-8, atol=1e-10)

    evaluate = jax.jit(apply)
    plain = evaluate(variables["params"], jnp.zeros(BLOCKS))
    np.testing.assert_allclose(
        plain.class_logits, golden[f"{name} plain classes"], rtol=1e-8, atol=1e-12
    )
    few = plain.mask_logits[..., ::3, ::3]
    np.testing.assert_allclose(few, golden[f"{name} plain masks"], rtol=1e-8, atol=1e-12)
    masked = evaluate(variables["params"], jnp.ones(BLOCKS))
    np.testing.assert_allclose(masked.mask_logits, masks[-1], rtol=1e-8, atol=1e-12)
    assert not np.allclose(masked.mask_logits, plain.mask_logits)
