"""A loss that is not finite is traced to the first place it came from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax.models import unet
from segjax.tasks import SemanticTask
from segjax.training import create_state
from segjax.training.finite import find_non_finite
from segjax.typing import Record

MODEL = unet(3, widths=(2, 4), norm="none")


def _batch():
    rng = np.random.default_rng(0)
    return Record(
        image=rng.random((4, 8, 8, 3), np.float32),
        labels=rng.integers(0, 3, (4, 8, 8), np.int32),
        index=np.arange(100, 104, dtype=np.int32),
    )


@functools.cache
def _initial(model):
    create = lambda key: create_state(key, model, optax.sgd(1.0), jnp.zeros((1, 8, 8, 3)))
    return jax.jit(create)(jax.random.key(0))


def _state(model=MODEL):
    return jax.tree.map(np.array, _initial(model))  # which can be written to


def _find(state, batch, model=MODEL):
    return find_non_finite(SemanticTask(3), model, state, batch, prepare=lambda key, record: record)


def test_a_poisoned_image_is_named_by_its_place_in_the_stream():
    batch = _batch()
    batch.image[2, 0, 0, 0] = np.nan
    assert _find(_state(), batch) == "the image of example 102 of the stream"


def test_a_poisoned_parameter_is_named():
    state = _state()
    state.params["encoder_1"]["Conv_0"]["bias"][0] = np.inf
    assert _find(state, _batch()) == "the parameter encoder_1/Conv_0/bias"


def test_a_poisoned_batch_statistic_is_named():
    model = unet(3, widths=(2, 4))
    state = _state(model)
    state.model_state["batch_stats"]["decoder_0"]["BatchNorm_0"]["var"][0] = np.nan
    place = "batch_stats/decoder_0/BatchNorm_0/var"
    assert _find(state, _batch(), model) == f"the batch statistic {place}"


@pytest.mark.parametrize("remat", [False, True])
def test_the_first_layer_to_overflow_is_named_and_none_after_it(remat):
    model = unet(3, widths=(2, 4), norm="none", remat=remat)
    state = _state(model)
    state.params["encoder_1"]["Conv_1"]["kernel"][...] = 3e38
    assert _find(state, _batch(), model) == "the output of layer encoder_1/Conv_1"


def test_a_term_is_named_where_all_layers_are_finite():
    state = _state()
    # Logits of ±3e38 are finite, but not their difference.
    state.params["logits"]["kernel"][...] = 0
    state.params["logits"]["bias"][...] = [3e38, -3e38, 0]
    assert _find(state, _batch()) == "the term cross_entropy"


def test_finite_numbers_are_not_blamed():
    assert "nothing" in _find(_state(), _batch())
