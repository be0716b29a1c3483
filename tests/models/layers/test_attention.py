"""Attention between two sets: what it computes, and what may not be looked at does not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import layers

ATTEND = layers.MultiHeadAttention(2, layers.Dense, train=False, return_attention=True)


def _draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def inputs():
    return _draw(3, 2, 4), _draw(3, 5, 6, seed=1), _draw(3, 5, 7, seed=2)


@pytest.fixture(scope="module")
def variables(inputs):
    return ATTEND.init(jax.random.key(0), *inputs)


def test_one_set_is_self_attention():
    x = _draw(2, 5, 4)
    variables = ATTEND.init(jax.random.key(0), x, x, x)
    own = layers.SelfAttention(2, layers.Dense, train=False, return_attention=True)
    products = variables["params"]
    joined = [products[name] for name in ("query", "key", "value")]
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *joined)
    expected = own.apply({"params": {"qkv": joined, "output": products["output"]}}, x)
    actual = ATTEND.apply(variables, x, x, x)
    for ours, theirs in zip(actual, expected, strict=True):
        assert_allclose(ours, theirs, atol=1e-6)


def test_hidden_keys_are_as_if_absent(inputs, variables):
    queries, keys, values = inputs
    shown = jnp.array([True, True, False, True, False])
    y, attention = ATTEND.apply(variables, queries, keys, values, shown)
    alone, _ = ATTEND.apply(variables, queries, keys[:, shown], values[:, shown])
    assert_allclose(y, alone, atol=1e-6)
    assert_array_equal(attention[..., ~shown], 0)


def test_a_query_that_sees_nothing_is_the_bias_with_gradients(inputs, variables):
    where = jnp.array([[True] * 5, [False] * 5])
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)

    def total(queries, keys, values):
        y, _ = ATTEND.apply(variables, queries, keys, values, where)
        return jnp.sum(y[..., 1, :]), y

    (_, y), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*inputs)
    assert_array_equal(
        y[..., 1, :], jnp.broadcast_to(variables["params"]["output"]["bias"], (3, 4))
    )
    jax.tree.map(lambda gradient: assert_array_equal(gradient, 0), gradients)


def test_no_queries_and_no_keys(inputs, variables):
    queries, keys, values = inputs
    apply = functools.partial(ATTEND.apply, variables)
    assert jax.eval_shape(apply, queries[:, :0], keys, values)[0].shape == (3, 0, 4)
    y, _ = apply(queries, keys[:, :0], values[:, :0])
    assert np.isfinite(y).all()


def test_heads_that_do_not_divide_the_features():
    x = jnp.zeros((1, 3, 5))
    with pytest.raises(ValueError, match="num_heads is 2; due is a divisor of 5"):
        ATTEND.init(jax.random.key(0), x, x, x)
