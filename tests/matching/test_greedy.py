"""The pairs are those of a plain loop over the costs in ascending order."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segjax.matching import greedy_assignment


def _by_a_loop(cost, allowed):
    """Of each row its column."""
    col_of = np.full(len(cost), -1)
    for flat in np.argsort(cost, axis=None, kind="stable"):
        row, column = np.unravel_index(flat, cost.shape)
        if allowed[row, column] and col_of[row] < 0 and column not in col_of:
            col_of[row] = column
    return col_of


@given(levels=st.sampled_from([2, 10, 10**6]), tall=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_cheapest_first(levels, tall, seed):
    rng = np.random.default_rng(seed)
    shape = (6, 4) if tall else (4, 6)
    cost = rng.integers(levels, size=shape).astype(np.float32)
    allowed = rng.random(shape) < 0.7
    rows, cols = map(np.asarray, jax.jit(greedy_assignment)(cost, where=allowed))
    expected = _by_a_loop(cost, allowed)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(cols, expected[rows])
    assert set(np.flatnonzero(expected >= 0)) <= set(rows)
