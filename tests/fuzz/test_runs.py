"""No folder of a run, however damaged, ends in anything but a line that names it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damage import survive

from segjax.data import Classes
from segjax.training import SemanticConfig, create_state
from segjax.training.build import make_model
from segjax.training.checkpoint import Checkpoints
from segjax.training.learnt import load_learnt
from segjax.training.run_folder import read_config, write_config

CLASSES = Classes(("sky", "road"), ((1, 2, 3), (4, 5, 6)), (False, True), (3, 90))
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("unchecked_shapes")]


def _config(folder):
    options = {"widths": "(4, 8)"}
    return SemanticConfig(run=folder, model="unet", model_options=options, size=(32, 32))


def test_a_damaged_configuration_is_said(tmp_path):
    write_config(_config(tmp_path), CLASSES, 3)
    errors = survive(read_config, tmp_path, count=200, expected=(ValueError,))
    assert errors > 50


@pytest.mark.slow
def test_a_damaged_run_is_said_or_as_it_was(tmp_path):
    config = _config(tmp_path)
    write_config(config, CLASSES, 3)
    model = make_model(config, len(CLASSES))
    key, images = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    state = jax.jit(lambda: create_state(key, model, optax.sgd(0.1), images))()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, {})
    checkpoints.close()
    expected = jax.device_get(state.variables)

    def read(folder):
        _, variables, _ = load_learnt(folder, "best")
        jax.tree.map(np.testing.assert_array_equal, variables, expected)

    errors = survive(read, tmp_path, count=30, expected=(ValueError, OSError))
    assert errors > 5
