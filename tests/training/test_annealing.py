import types

import jax.numpy as jnp
import numpy as np

from segjax.training import TrainState
from segjax.training.annealing import anneal_masks


def _state(step, model_state):
    nothing = types.SimpleNamespace()
    key, true = np.zeros(2, np.uint32), jnp.array(True)
    return TrainState(jnp.array(step), nothing, model_state, nothing, nothing, key, true)


def test_blocks_take_turns_between_the_first_and_the_last_part_of_the_training():
    model_state = {"annealing": {"mask_probs": jnp.ones(2)}, "batch_stats": {"mean": 3.0}}
    rows = []
    for step in range(0, 50, 10):
        state = anneal_masks(_state(step, model_state), 40)
        assert state.model_state["batch_stats"] == {"mean": 3.0}
        rows.append(np.asarray(state.model_state["annealing"]["mask_probs"]).tolist())
    assert rows == [[1, 1], [1, 1], [0, 1], [0, 0], [0, 0]]


def test_another_models_state_stays():
    state = _state(5, {"batch_stats": {}})
    assert anneal_masks(state, 10) is state
