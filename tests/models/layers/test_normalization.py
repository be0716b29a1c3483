"""Batch norm's moments, taken in one pass: those of two passes, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax.models import layers


def _normalise(x):
    return layers.BatchNorm(train=True).init_with_output(jax.random.key(0), x)[0]


def _two_passes(x):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + 1e-5)


def test_first_and_second_derivatives_are_those_of_two_passes():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 2)))
        direction = jnp.cos(x)

        def derivatives(norm, x):
            total = lambda x: jnp.sum(jnp.sin(3 * norm(x)) * direction)
            return norm(x), jax.jvp(jax.grad(total), (x,), (direction,))

        ours, theirs = jax.jit(lambda x: [derivatives(f, x) for f in (_normalise, _two_passes)])(x)
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, theirs)


def test_a_mean_far_from_zero_costs_no_digits():
    x = 1e4 + np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected = (x - x.mean((0, 1, 2), np.float64)) / x.std((0, 1, 2), np.float64)
    assert_allclose(_normalise(jnp.asarray(x)), expected, atol=3e-3)


def test_constant_channels_are_zero_with_gradients():
    x = jnp.full((1, 2, 2, 3), 0.1)
    y, pull = jax.vjp(_normalise, x)
    assert_allclose(y, 0, atol=1e-4)
    assert np.isfinite(pull(jnp.ones_like(y))[0]).all()


def test_what_is_masked_does_not_count_on_any_devices():
    """Unequal numbers on 8 devices, none on one of them: the statistics of all that count."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3, 4, 2)).astype(np.float32)
    where = rng.random((8, 3, 1)) < 0.6
    where[2] = False
    norm = layers.BatchNorm(train=True, axis_name="devices")
    start = {"params": {"scale": np.float32([2, 3]), "bias": np.float32([0, 1])}}
    start["batch_stats"] = {"mean": np.zeros(2, np.float32), "var": np.ones(2, np.float32)}
    apply = lambda x, where: norm.apply(start, x, where, mutable=["batch_stats"])
    spoilt = np.where(where[..., None], x, 1e6)
    y, changed = jax.pmap(apply, "devices")(spoilt, where)

    kept = np.broadcast_to(where, x.shape[:3])
    counted = x[kept].astype(np.float64)
    mean, var = counted.mean(0), counted.var(0)
    expected = (counted - mean) / np.sqrt(var + 1e-5) * [2, 3] + [0, 1]
    assert_allclose(np.asarray(y)[kept], expected, rtol=1e-4, atol=1e-5)
    statistics = jax.tree.map(lambda leaf: np.asarray(leaf)[0], changed["batch_stats"])
    assert_allclose(statistics["mean"], 0.1 * mean, rtol=1e-5, atol=1e-6)
    assert_allclose(statistics["var"], 0.9 + 0.1 * counted.var(0, ddof=1), rtol=1e-5)


def _train(shape, **options):
    norm = layers.BatchNorm(train=True, **options)
    start = layers.BatchNorm().init(jax.random.key(0), jnp.ones(shape))
    return lambda x: norm.apply(start, x, mutable=["batch_stats"])


@pytest.mark.parametrize("shape", [(1, 4), (1, 1, 1, 4)])
def test_one_value_a_channel_is_no_batch_to_train_on(shape):
    """Its variance is 0: the running one would vanish, and inference be many times too large."""
    with pytest.raises(ValueError, match="expected more than 1 value per channel when training"):
        _train(shape)(jnp.ones(shape))


def test_values_of_all_devices_count_together():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 1, 1, 1, 2)), jnp.float32)
    _, changed = jax.pmap(_train((1, 1, 1, 2), axis_name="devices"), "devices")(x)
    expected = 0.9 + 0.1 * np.var(x, (0, 1, 2, 3), ddof=1)
    assert_allclose(changed["batch_stats"]["var"][0], expected, rtol=1e-5)

    alone = jax.pmap(_train((1, 2), axis_name="devices"), "devices", devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="expected more than 1 value per channel"):
        alone(jnp.ones((1, 1, 2)))


@pytest.mark.parametrize("counted", [0, 1])
def test_where_too_little_counts_statistics_stay(counted):
    x = jnp.ones((2, 3))
    start = layers.BatchNorm().init(jax.random.key(0), x)
    norm = layers.BatchNorm(train=True)

    def total(x):
        y, changed = norm.apply(start, x, jnp.arange(2) < counted, mutable=["batch_stats"])
        return y.sum(), changed

    gradient, changed = jax.grad(total, has_aux=True)(x)
    assert np.isfinite(gradient).all()
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], start["batch_stats"])


def test_one_value_a_group_has_no_variance_either():
    norm = layers.norm("group", train=False)
    with pytest.raises(ValueError, match="expected more than 1 value per group"):
        norm.init(jax.random.key(0), jnp.ones((4, 1, 1, 8)))
    norm.init(jax.random.key(0), jnp.ones((4, 1, 1, 16)))
