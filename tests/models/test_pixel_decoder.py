"""The pixel decoder's own parts: how its maps are laid out, and where it begins to look."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import layers
from segjax.models.pixel_decoder import DeformableAttention, unflatten

SIZES = ((9, 10), (18, 21))


def test_maps_survive_being_laid_out_in_a_row():
    rng = np.random.default_rng(0)
    maps = [jnp.asarray(rng.normal(size=(2, *size, 3))) for size in SIZES]
    row = jnp.concatenate([layers.flatten(x) for x in maps], axis=-2)
    jax.tree.map(np.testing.assert_array_equal, unflatten(row, SIZES), maps)


@pytest.fixture(scope="module")
def attention():
    """Its first result for a query in the middle, of ramps that count pixels from left and top."""
    ramps = [np.mgrid[:height, :width][::-1] + 0.5 for height, width in SIZES]
    memory = np.concatenate([np.moveaxis(ramp, 0, -1).reshape(-1, 2) for ramp in ramps])
    memory = np.tile(memory, 4).astype(np.float32)  # for each of four heads x and y
    same = lambda key, shape, dtype: jnp.eye(*shape, dtype=dtype)
    dense = lambda *args, **options: layers.Dense(*args, **{"kernel_init": same} | options)
    model = DeformableAttention(4, SIZES, dense)
    run = functools.partial(model.init_with_output, jax.random.key(0))
    middle = jnp.full((1, 2), 0.5)
    return jax.jit(run)(jnp.ones((1, 8)), middle, jnp.asarray(memory))


def test_heads_begin_by_looking_into_four_directions(attention):
    _, variables = attention
    offsets = variables["params"]["offsets"]["bias"].reshape(4, len(SIZES), 4, 2)
    directions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    steps = np.arange(1, 5)[:, None] * directions[:, None, None]
    np.testing.assert_allclose(offsets, np.broadcast_to(steps, offsets.shape), atol=1e-6)


def test_what_heads_read_is_the_mean_of_what_lies_there(attention):
    read, _ = attention
    centre = np.mean([[width / 2, height / 2] for height, width in SIZES], axis=0)
    # On average the points lie two and a half pixels from the middle, on either level.
    expected = centre + 2.5 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    np.testing.assert_allclose(read.reshape(4, 2), expected, rtol=1e-5)
