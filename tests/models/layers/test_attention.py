"""Attention between two sets: what it computes, and what may not be looked at does not matter."""

import functools
import re

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


@pytest.mark.parametrize("form", ["map", "where", "mesh", "half", "vmap"])
def test_large_maps_are_as_if_held(form):
    """A CPU takes them one head after the other: of 2^19 weights and more."""
    shape = 8 if form == "mesh" else 2, 3, 730, 4
    query, key, value = (_draw(*shape, seed=seed) for seed in range(3))
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    if form == "half":
        query, key, value = (x.astype(jnp.bfloat16) for x in (query, key, value))
        tolerance = {"rtol": 0.1, "atol": 0.02}
    where = jax.random.bernoulli(jax.random.key(0), 0.5, (3, 730, 730)).at[:, 5].set(False)
    where = where if form == "where" else None

    def held(*operands):
        return layers.attend(*operands, where=where, return_attention=True)[0]

    def in_turn(*operands):
        attend = lambda *x: layers.attend(*x, where=where)[0]
        return (jax.vmap(attend) if form == "vmap" else attend)(*operands)

    def gradients(function):
        total = lambda *x: jnp.sum(jnp.sin(function(*x)).astype(jnp.float32))
        return jax.jit(lambda *x: (function(*x), jax.grad(total, (0, 1, 2))(*x)))

    if form == "mesh":
        mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
        data = jax.NamedSharding(mesh, jax.P("data"))
        with jax.set_mesh(mesh):
            placed = jax.device_put((query, key, value), data)
            compiled = gradients(in_turn).lower(*placed).compile()
            actual = compiled(*placed)
        assert not re.search("all-gather|all-reduce|collective", compiled.as_text())
    else:
        actual = gradients(in_turn)(query, key, value)
    expected = gradients(held)(query, key, value)
    for ours, due in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        assert ours.dtype == due.dtype
        assert_allclose(ours.astype(jnp.float32), due.astype(jnp.float32), **tolerance)


def test_large_maps_are_not_kept_for_the_gradient():
    x = _draw(1, 4, 1024, 8)

    def peak(function):
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(function(x, x, x)[0])))
        return gradient.lower(x).compile().memory_analysis().temp_size_in_bytes

    one_map = 4 * 1024**2
    assert peak(layers.attend) < 4 * one_map
    assert peak(functools.partial(layers.attend, return_attention=True)) >= 4 * one_map


def test_no_queries_and_no_keys(inputs, variables):
    queries, keys, values = inputs
    apply = functools.partial(ATTEND.apply, variables)
    assert jax.eval_shape(apply, queries[:, :0], keys, values)[0].shape == (3, 0, 4)
    y, _ = apply(queries, keys[:, :0], values[:, :0])
    assert np.isfinite(y).all()


def test_heads_that_do_not_divide_the_features():
    x = jnp.zeros((1, 3, 5))
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 5, got 2"):
        ATTEND.init(jax.random.key(0), x, x, x)
