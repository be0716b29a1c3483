"""FCN and DeepLabV3 are torchvision's: outputs, running statistics and gradients, in float64."""

import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

sys.path.insert(0, str(Path(__file__).parent))
from weights import draw_state_dict

from segjax.models import create
from segjax.pretrained.keys import to_state_dict, to_variables
from segjax.pretrained.tables import torchvision as tables

SCRIPT = Path(__file__).parent / "golden" / "torchvision_dense.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torchvision",)
TABLES = {"fcn_resnet50": tables.FCN_RESNET, "deeplabv3_resnet50": tables.DEEPLABV3_RESNET}


def _without_dropout(next_function, args, kwargs, context):
    return args[0] if isinstance(context.module, nn.Dropout) else next_function(*args, **kwargs)


def _drawn(model, table, images):
    """The model's variables with the weights of the original's keys."""
    template = jax.eval_shape(model.init, jax.random.key(0), images)
    keys = to_state_dict(table, jax.tree.map(lambda s: np.broadcast_to(0.0, s.shape), template))
    return to_variables(table, draw_state_dict({k: v.shape for k, v in keys.items()}), template)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEER["KEYS"])
def test_outputs_statistics_and_gradients(golden, name):
    float64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    model = create(name, PEER["CLASSES"], **float64)
    images = jnp.asarray(golden["images"])
    variables = _drawn(model, TABLES[name], images)

    def objective(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        with nn.intercept_methods(_without_dropout):
            output, changed = model.apply(variables, images, train=True, mutable=["batch_stats"])
        cosines = jnp.cos(jnp.arange(output.logits.size)).reshape(output.logits.shape)
        return jnp.sum(output.logits * cosines) + jnp.sum(output.auxiliary[0]), changed

    @jax.jit
    def run(variables):
        gradient, changed = jax.grad(objective, has_aux=True)(
            variables["params"], variables["batch_stats"]
        )
        return model.apply(variables, images), gradient, changed

    output, gradient, changed = run(variables)
    every_fourth = (slice(None), slice(None, None, 4), slice(None, None, 4))
    for ours, theirs in ((output.logits, "logits"), (output.auxiliary[0], "auxiliary")):
        np.testing.assert_allclose(ours[every_fourth], golden[f"{name} {theirs}"], rtol=1e-8)

    weights = to_state_dict(TABLES[name], variables)
    slopes = to_state_dict(TABLES[name], {"params": gradient})
    actual = [np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"][name]]
    np.testing.assert_allclose(actual, golden[f"{name} gradient"], rtol=1e-8)

    state = to_state_dict(TABLES[name], changed)
    for statistic in ("mean", "var"):
        total = sum(v.sum() for k, v in state.items() if k.endswith(f"running_{statistic}"))
        np.testing.assert_allclose(total, golden[f"{name} {statistic}"], rtol=1e-8)
