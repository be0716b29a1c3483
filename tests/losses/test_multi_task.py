import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.losses import fixed_weighting, uncertainty_weighting

NAMES = ("region", "edges", "depth")
positive = st.floats(0.125, 8, width=32)
triples = st.tuples(positive, positive, positive)


def _named(values):
    return {name: jnp.float32(value) for name, value in zip(NAMES, values, strict=True)}


@given(triples, triples)
def test_fixed_weighting_is_a_sum_whose_gradients_are_the_weights(losses, weights):
    total, gradient = jax.value_and_grad(fixed_weighting)(_named(losses), _named(weights))
    np.testing.assert_allclose(total, np.dot(losses, weights), rtol=1e-6)
    np.testing.assert_allclose([gradient[name] for name in NAMES], weights)


@given(triples, triples)
def test_an_uncertainty_divides_its_loss_and_costs_half_its_logarithm(losses, variances):
    total, gradients = jax.value_and_grad(uncertainty_weighting, argnums=(0, 1))(
        _named(losses), _named(np.log(variances))
    )
    ratios = np.divide(losses, variances)
    np.testing.assert_allclose(total, np.sum(ratios + np.log(variances) / 2), rtol=1e-5, atol=1e-5)
    loss_gradients, variance_gradients = ([g[name] for name in NAMES] for g in gradients)
    np.testing.assert_allclose(loss_gradients, np.divide(1, variances), rtol=1e-5)
    np.testing.assert_allclose(variance_gradients, 0.5 - ratios, rtol=1e-5, atol=1e-5)


@given(triples)
def test_the_best_variance_is_twice_the_loss(losses):
    best = _named(np.log(2 * np.array(losses)))
    total, gradient = jax.value_and_grad(uncertainty_weighting, argnums=1)(_named(losses), best)
    np.testing.assert_allclose(total, np.sum(0.5 + np.log(2 * np.array(losses)) / 2), rtol=1e-5)
    np.testing.assert_allclose([gradient[name] for name in NAMES], 0, atol=1e-6)


def test_names_and_not_places_belong_together():
    losses = {"a": jnp.float32(1), "b": jnp.float32(10)}
    assert fixed_weighting(losses, {"b": 2.0, "a": 3.0}) == 23


@pytest.mark.parametrize("weighting", [fixed_weighting, uncertainty_weighting])
@pytest.mark.parametrize(
    ("losses", "factors", "message"),
    [
        (["a", "b"], ["a"], r": expected .*\['a', 'b'\], got \['a'\]"),
        (["a"], ["a", "c"], r"got \['a', 'c'\]"),
        ([], [], r"losses: expected .*got none"),
    ],
)
def test_errors_name_what_does_not_fit(weighting, losses, factors, message):
    zero = jnp.zeros(())
    with pytest.raises(ValueError, match=message):
        weighting(dict.fromkeys(losses, zero), dict.fromkeys(factors, zero))
