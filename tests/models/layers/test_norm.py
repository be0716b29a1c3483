"""Batch norm's moments, taken in one pass: those of two passes, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
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
