import jax
import numpy as np

from segjax.data.synthetic.draws import normal, uniform


def test_flat_draws_are_those_of_jax():
    key = jax.random.key(3)
    np.testing.assert_array_equal(uniform(key, (4, 5)), jax.random.uniform(key, (4, 5)))
    np.testing.assert_array_equal(normal(key, (4, 5, 2)), jax.random.normal(key, (4, 5, 2)))
