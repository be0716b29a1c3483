"""Random arrays drawn flat, as XLA:CPU takes four times as long to compile draws of many axes."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float


def uniform(key: jax.Array, shape: Sequence[int]) -> Float[jax.Array, "..."]:
    """Uniform float32 numbers in 0..1, the same as `jax.random.uniform`'s.

    Args:
      key: random key.
      shape: shape of the result.

    Returns:
      The numbers.
    """
    return jax.random.uniform(key, (math.prod(shape),), jnp.float32).reshape(shape)


def normal(key: jax.Array, shape: Sequence[int]) -> Float[jax.Array, "..."]:
    """Standard normal float32 numbers, the same as `jax.random.normal`'s.

    Args:
      key: random key.
      shape: shape of the result.

    Returns:
      The numbers.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)
