import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.data.synthetic.shapes import SHAPES, Things, covers, to_local


def thing(shape, *, center=(0.0, 0.0), radii=(1.0, 1.0), angle=0.0, bend=0.0):
    return Things(
        jnp.array(SHAPES.index(shape)),
        jnp.array(center, jnp.float32),
        jnp.array(radii, jnp.float32),
        jnp.array(angle, jnp.float32),
        jnp.array(bend, jnp.float32),
        jnp.array(True),
    )


def grid(extent, steps):
    axis = extent * ((np.arange(steps) + 0.5) / steps * 2 - 1)
    x, y = np.meshgrid(axis, axis)
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


# Two bars of half width 0.2 that end on the unit circle, less the square they share.
BAR = 2 * (0.2 * np.sqrt(1 - 0.2**2) + np.arcsin(0.2))
AREAS = {
    "disc": np.pi,
    "box": 2,
    "triangle": 3 * np.sqrt(3) / 4,
    "star": 5 * 0.4 * np.sin(np.pi / 5),
    "ring": np.pi * (1 - 0.62**2),
    "cross": 2 * BAR - 0.4**2,
    "blob": np.pi * (1 + 0.3**2 / 2) / 1.3**2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_area_is_that_of_the_figure(shape):
    rx, ry = 3.0, 2.0
    x, y = grid(3.5, 400)
    inside = covers(thing(shape, radii=(rx, ry), angle=0.5, bend=1.0), x, y)
    area = np.mean(inside) * 7.0**2
    np.testing.assert_allclose(area, AREAS[shape] * rx * ry, rtol=0.01)


@given(
    shape=st.sampled_from(SHAPES),
    angle=st.floats(-4, 4),
    center=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
def test_a_thing_turns_and_moves_as_a_whole(shape, angle, center):
    x, y = grid(5.5, 24)
    still = thing(shape, radii=(4.0, 5.0), bend=0.3)
    moved = still._replace(angles=jnp.float32(angle), centers=jnp.array(center, jnp.float32))
    cos, sin = np.cos(angle), np.sin(angle)
    there = covers(moved, cos * x - sin * y + center[0], sin * x + cos * y + center[1])
    assert np.mean(there == covers(still, x, y)) > 0.98  # but for points right on the outline


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_lies_beyond_its_radii(shape):
    x, y = grid(12.0, 100)
    inside = covers(thing(shape, radii=(5.0, 10.0), bend=2.0), x, y)
    assert np.any(inside)
    assert not np.any(inside & (np.hypot(x / 5, y / 10) > 1))


def test_local_coordinates_end_at_one():
    box = thing("box", center=(7.0, 3.0), radii=(4.0, 2.0), angle=np.pi / 2)
    u, v = to_local(box, jnp.array([7.0, 5.0]), jnp.array([7.0, 3.0]))
    np.testing.assert_allclose(np.stack([u, v], -1), [[1, 0], [0, 1]], atol=1e-6)
