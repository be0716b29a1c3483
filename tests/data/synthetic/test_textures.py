import jax
import jax.numpy as jnp
import numpy as np

from segjax.data.synthetic.textures import PATTERNS, STUFF, noise, stuff_textures, thing_textures


def test_every_texture_fills_its_range():
    textures = stuff_textures(jax.random.key(0), (64, 48))
    assert textures.shape == (len(STUFF), 64, 48)
    assert np.all(np.abs(textures) <= 1)
    assert np.all(np.max(textures, axis=(1, 2)) > 0.8)
    assert np.all(np.min(textures, axis=(1, 2)) < -0.8)


def test_noise_has_unit_variance_and_the_scale_of_its_cell():
    fine, coarse = noise(jax.random.key(0), (200, 200), cells=(2.5, 20.0))
    # Cubic interpolation takes a little variance off between the points of the grid.
    assert 0.5 < np.var(fine) < 1.2
    step = [np.mean(np.diff(field, axis=1) ** 2) / np.var(field) for field in (fine, coarse)]
    assert step[0] > 10 * step[1]


def test_patterns_are_of_two_values_and_all_differ():
    v, u = jnp.mgrid[-1:1:40j, -1:1:40j]
    patterns = np.asarray(thing_textures(u, v))
    assert set(np.unique(patterns)) == {-1.0, 1.0}
    agreement = np.mean(patterns[:, None] == patterns, axis=(2, 3))
    assert np.all(agreement[~np.eye(len(PATTERNS), dtype=bool)] < 0.9)
    np.testing.assert_array_equal(
        patterns[PATTERNS.index("striped")], patterns[1][:1].repeat(40, 0)
    )
