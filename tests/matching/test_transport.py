"""Sums of the plan, its form, its limits for high and low temperature, its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.matching import linear_sum_assignment, sinkhorn

RNG = np.random.default_rng(0)
COST = RNG.normal(size=(2, 4, 6)).astype(np.float32)
ALLOWED = np.ones(COST.shape, bool)
ALLOWED[0, 2], ALLOWED[1, :, 3], ALLOWED[1, 0, 0] = False, False, False

_fit = jax.jit(sinkhorn, static_argnames=("temperature", "iterations"))


def test_rows_and_columns_have_their_shares():
    plan = np.asarray(_fit(np.where(ALLOWED, COST, np.nan), temperature=0.5, iterations=200))
    np.testing.assert_array_equal(plan[~ALLOWED], 0)
    for axis in (1, 2):
        has_any = ALLOWED.any(axis)
        share = has_any / has_any.sum(-1, keepdims=True)
        np.testing.assert_allclose(plan.sum(axis), share, atol=1e-5)


def test_plan_is_a_scaled_kernel():
    """`log P + cost/T` is a sum of a row's and a column's number: all 2×2 minors vanish."""
    plan = _fit(COST, temperature=0.5, iterations=200)
    scaling = np.log(plan) + COST / 0.5
    minors = scaling[:, :1, :1] + scaling - scaling[:, :1] - scaling[:, :, :1]
    np.testing.assert_allclose(minors, 0, atol=1e-4)


def test_cold_it_is_the_best_assignment_and_hot_it_is_uniform():
    square = COST[:, :, :4]
    cold = _fit(square, temperature=0.02, iterations=500)
    _, cols = linear_sum_assignment(square)
    np.testing.assert_array_equal(np.argmax(cold, axis=-1), cols)
    picked = np.take_along_axis(np.asarray(cold), np.asarray(cols)[..., None], axis=-1)
    np.testing.assert_allclose(picked, 1 / 4, atol=0.01)
    hot = _fit(square, temperature=1e4, iterations=500)
    np.testing.assert_allclose(hot, 1 / 16, atol=1e-4)


def test_slope_of_the_optimal_objective_is_the_plan():
    """`min_P ⟨P, C⟩ + T·ΣP(log P − 1)`, differentiated through all iterations (Danskin)."""

    def objective(cost):
        plan = _fit(cost, temperature=1.0, iterations=200)
        return jnp.sum(plan * cost) + jnp.sum(plan * (jnp.log(plan) - 1))

    slope = jax.jit(jax.grad(objective))(COST)
    np.testing.assert_allclose(slope, _fit(COST, temperature=1.0, iterations=200), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0, "iterations": 1}, r"temperature: expected .*got 0"),
        ({"temperature": 1, "iterations": 0}, r"iterations: expected .*got 0"),
    ],
)
def test_errors_name_the_option(unchecked_shapes, options, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(COST, **options)
