"""Functions over examples: the same values whichever loop computes them, and the sort."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal

from segjax.mapping import join_vmap, map_examples, map_shards, map_valid, stable_argsort

X = np.random.default_rng(0).uniform(1, 2, (7, 3)).astype(np.float32)
VALID = np.array([True, False, False, False, True, True, False])


def _function(x):
    return {"root": jnp.sqrt(x), "sum": jnp.sum(x, axis=-1)}


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("padding", [-1, 0, np.nan])
def test_values_and_gradients_of_the_valid_alone(chunk, padding):
    """Of padding the root, or its slope, is not finite."""
    x = np.where(VALID[:, None], X, np.float32(padding))
    results = jax.jit(lambda x: map_valid(_function, VALID, x, chunk=chunk))(x)
    for name, value in _function(X).items():
        assert_allclose(results[name][VALID], value[VALID], rtol=1e-6)
        assert_array_equal(results[name][~VALID], 0)
    gradient = jax.grad(lambda x: jnp.sum(map_valid(_function, VALID, x, chunk=chunk)["root"]))(x)
    assert_allclose(gradient, np.where(VALID[:, None], 0.5 / np.sqrt(X), 0), rtol=1e-5)


def test_a_chunk_without_valid_entries_is_not_computed():
    seen = []

    def function(x):
        jax.debug.callback(lambda x: seen.append(float(x[0, 0])), x, ordered=True)
        return x

    jax.block_until_ready(map_valid(function, VALID, X, chunk=2))
    jax.effects_barrier()
    assert seen == [float(X[i, 0]) for i in (0, 4)]


@pytest.mark.parametrize(
    "step", [lambda x: map_valid(jnp.sin, VALID, x, chunk=2), lambda x: map_examples(jnp.sin, x)]
)
def test_elsewhere_all_are_computed_at_once(step):
    step = jax.jit(step)
    program = step.trace(X).lower(lowering_platforms=("tpu",)).as_text()
    assert "while" not in program
    assert "while" in step.trace(X).lower(lowering_platforms=("cpu",)).as_text()


def test_examples_are_mapped_as_by_vmap():
    due = jax.vmap(_function)(X)
    for options in ({}, {"together": jax.vmap(_function)}):
        jax.tree.map(assert_array_equal, map_examples(_function, X, **options), due)


def test_shards_have_no_collectives():
    """Left to the partitioner, a loop over the examples would gather them."""
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
    x = jax.device_put(np.arange(16.0), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    scale = lambda factor, x: jax.lax.map(lambda x: factor * x, x)
    step = jax.jit(lambda x: map_shards(scale, x, shared=(2.0 * jnp.ones(()),)))
    with jax.set_mesh(mesh):
        compiled = step.lower(x).compile()
        assert_array_equal(compiled(x), 2 * np.arange(16.0))
        assert_array_equal(step(x[:3]), 2 * np.arange(3.0))  # fewer than the devices
    assert not re.search("all-(gather|reduce|to-all)", compiled.as_text())


def test_vmaps_are_joined_to_one_call():
    shapes = []

    @join_vmap
    def scale(x, factor, none):
        shapes.append((x.shape, factor.shape))
        return {"scaled": x * factor[:, None]}

    x, factor = jnp.arange(24.0).reshape(2, 3, 4), jnp.array([1.0, 2.0, 3.0])
    outer = jax.vmap(lambda x, f: jax.vmap(scale, (0, None, None))(x, f, None), (0, None))
    result = outer(x[:, :, None], factor[:1])
    assert shapes[-1] == ((6, 4), (6,))
    assert_array_equal(result["scaled"], x[:, :, None])
    assert_array_equal(scale(x[0], factor, None)["scaled"], x[0] * factor[:, None])


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "int8"])
@pytest.mark.parametrize("tied", [False, True])
def test_argsort_is_lexsort(dtype, tied):
    random = np.random.default_rng(0)
    keys = random.integers(-4, 5, 200).astype(dtype)
    if dtype.startswith("float"):
        keys = np.concatenate([keys / 3, [0.0, -0.0, np.inf, -np.inf, 0.0]]).astype(dtype)
    ties = random.random(keys.size) < 0.5 if tied else None
    due = np.lexsort((keys,) if ties is None else (ties, keys))
    assert_array_equal(stable_argsort(keys, ties=ties), due)
