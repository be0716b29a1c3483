"""Sine positions: of the picture alone, whatever fills up its canvas."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax.models import layers


def test_the_picture_has_the_same_places_on_any_canvas():
    where = np.zeros((2, 5, 6), bool)
    where[0, :3, :4] = where[1] = True
    positions = layers.sine_positions(where, 8)
    alone = layers.sine_positions(np.ones((3, 4), bool), 8)
    assert_allclose(positions[0, :3, :4], alone, atol=1e-6)
    assert positions.shape == (2, 5, 6, 8)
    assert np.isfinite(positions).all()


def test_waves_of_rows_come_before_those_of_columns():
    positions = layers.sine_positions(np.ones((4, 4), bool), 8)
    assert_allclose(positions[..., :4], jnp.swapaxes(positions[..., 4:], 0, 1), atol=1e-6)
    assert_allclose(positions[..., :4], np.broadcast_to(positions[:, :1, :4], (4, 4, 4)))
    squares = positions.reshape(4, 4, 4, 2) ** 2
    assert_allclose(squares.sum(-1), 1, atol=1e-6)


def test_features_that_are_no_multiple_of_four():
    with pytest.raises(ValueError, match="features: expected a multiple of 4, got 6"):
        layers.sine_positions(np.ones((2, 2), bool), 6)
