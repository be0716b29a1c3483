"""Deformable attention against `sample`, level by level, head by head, point by point."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax.ops import deformable_attention, sample

LEAD, QUERIES, HEADS, POINTS, CHANNELS = (2, 2), 6, 2, 2, 5
SHAPES = ((3, 4), (1, 2))


def _arguments():
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(*LEAD, *shape, HEADS, CHANNELS)) for shape in SHAPES]
    # Inside the image, on its border and outside, some far.
    locations = rng.choice([0, 1 / 8, 0.3, 0.5, 1, -0.2, 1.2, 9, -1e4], (*LEAD, 48))
    locations = rng.permuted(np.concatenate([locations, rng.random((*LEAD, 48))], -1), axis=-1)
    locations = locations.reshape(*LEAD, QUERIES, HEADS, len(SHAPES), POINTS, 2)
    weights = rng.normal(size=locations.shape[:-1])
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (levels, locations, weights))


def _plain(levels, locations, weights):
    """Of one example, `[q, heads, c]`."""
    heads = []
    for head in range(HEADS):
        read = 0
        for level, point in itertools.product(range(len(SHAPES)), range(POINTS)):
            values = levels[level][:, :, head]
            places = locations[:, head, level, point] * jnp.array(values.shape[1::-1])
            read += weights[:, head, level, point, None] * sample(values, places)
        heads.append(read)
    return jnp.stack(heads, axis=1)


@pytest.fixture(scope="module")
def results():
    """Values and gradients, ours and those of the plain form."""

    def evaluate(function, arguments):
        objective = lambda *args: jnp.sum(jnp.sin(function(*args)))
        return function(*arguments), jax.grad(objective, (0, 1, 2))(*arguments)

    by_example = jax.vmap(jax.vmap(_plain))
    run = lambda args: [evaluate(function, args) for function in (deformable_attention, by_example)]
    return jax.jit(run)(_arguments())


def test_values_are_weighted_samples(results):
    (actual, _), (expected, _) = results
    assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_weighted_samples(results):
    (_, actual), (_, expected) = results
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_no_query_reads_nothing():
    levels, locations, weights = _arguments()
    read = deformable_attention(levels, locations[:, :, :0], weights[:, :, :0])
    assert read.shape == (*LEAD, 0, HEADS, CHANNELS)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v, x, w: ([], x, w), ValueError, r"levels: expected .*got none"),
        (lambda v, x, w: ([v[0][..., 0]], x, w), ValueError, "locations"),
        (lambda v, x, w: ([v[0][:, :, :0]], x, w), ValueError, "levels"),
        (lambda v, x, w: ([v[0], v[1][0]], x, w), ValueError, "levels: expected shapes"),
        (lambda v, x, w: (v[:1], x, w), ValueError, "locations"),
        (lambda v, x, w: (v, x[..., :1], w), ValueError, "locations"),
        (lambda v, x, w: (v, x, w[..., :1]), ValueError, "weights"),
        (lambda v, x, w: (v, x.astype(int), w), TypeError, r"locations: expected .*got int32"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        deformable_attention(*change(*_arguments()))
