"""Padded lists: what is not there is skipped, and has no part in any gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax.padding import of_valid

X = np.random.default_rng(0).uniform(1, 2, (7, 3)).astype(np.float32)
VALID = np.array([True, False, False, False, True, True, False])


def _function(x):
    return {"root": jnp.sqrt(x), "sum": jnp.sum(x, axis=-1)}


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("padding", [-1, 0, np.nan])
def test_values_and_gradients_of_the_valid_alone(chunk, padding):
    """Of padding the root, or its slope, is not finite."""
    x = np.where(VALID[:, None], X, np.float32(padding))
    results = jax.jit(lambda x: of_valid(_function, VALID, x, chunk=chunk))(x)
    for name, value in _function(X).items():
        assert_allclose(results[name][VALID], value[VALID], rtol=1e-6)
        assert_array_equal(results[name][~VALID], 0)
    gradient = jax.grad(lambda x: jnp.sum(of_valid(_function, VALID, x, chunk=chunk)["root"]))(x)
    assert_allclose(gradient, np.where(VALID[:, None], 0.5 / np.sqrt(X), 0), rtol=1e-5)


def test_a_chunk_without_valid_entries_is_not_computed():
    seen = []

    def function(x):
        jax.debug.callback(lambda x: seen.append(float(x[0, 0])), x, ordered=True)
        return x

    jax.block_until_ready(of_valid(function, VALID, X, chunk=2))
    jax.effects_barrier()
    assert seen == [float(X[i, 0]) for i in (0, 4)]


def test_elsewhere_all_are_computed_at_once():
    step = jax.jit(lambda x: of_valid(jnp.sin, VALID, x, chunk=2))
    program = step.trace(X).lower(lowering_platforms=("tpu",)).as_text()
    assert "while" not in program
    assert "while" in step.trace(X).lower(lowering_platforms=("cpu",)).as_text()
