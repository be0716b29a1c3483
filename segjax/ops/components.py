"""Connected components of masks, on the device."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from segjax.mapping import join_vmap
from segjax.ops.morphology import neighborhood
from segjax.typing import Array


def connected_components(
    mask: Bool[Array, "*b h w"], *, connectivity: int
) -> Int[jax.Array, "*b h w"]:
    """Label the connected components of a mask, in the order of their first pixels.

    Each pixel points to another pixel of its component with a smaller index. Every round follows
    the pointers of the neighbours and shortens them, until all point to the component's first
    pixel: O(log n) rounds in practice (19 for a snake through 512² pixels), whatever the shapes.

    Args:
      mask: `[*b, h, w]`, boolean.
      connectivity: 4 to connect pixels that share a side, 8 also those that share a corner.

    Returns:
      int32 `[*b, h, w]`: 0 on the background, and 1 to the number of components on them.

    Raises:
      ValueError: If `mask` has fewer than 2 axes, or `connectivity` is neither 4 nor 8.
      TypeError: If `mask` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.connected_components(jnp.array([[1, 0, 1], [0, 1, 0]], bool), connectivity=4)
      Array([[1, 0, 2],
             [0, 3, 0]], dtype=int32)

    References:
      Zhang, Azad and Hu, "FastSV: a distributed-memory connected component algorithm with
      fast convergence", 2020, algorithm 2.
    """
    if mask.ndim < 2:
        raise ValueError(f"mask: expected shape [*b, h, w], got {mask.shape}")
    if mask.dtype != bool:
        raise TypeError(f"mask: expected bool, got {mask.dtype}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity: expected 4 or 8, got {connectivity}")
    label = join_vmap(functools.partial(_label, connectivity))
    images = jnp.asarray(mask).reshape(math.prod(mask.shape[:-2]), *mask.shape[-2:])
    return label(images).reshape(mask.shape)


@functools.partial(jax.jit, static_argnums=0)
def _label(connectivity: int, mask: Bool[jax.Array, "b h w"]) -> Int[jax.Array, "b h w"]:
    pixel = jnp.arange(mask.size, dtype=jnp.int32).reshape(mask.shape)

    def improve(state):
        parent, _ = state
        grandparent = parent.ravel()[parent]
        candidate = jnp.where(mask, grandparent, mask.size)
        lowest = neighborhood(jnp.minimum, candidate, connectivity, outside=mask.size)
        lowest = jnp.where(mask, lowest, mask.size)
        hooked = parent.ravel().at[parent.ravel()].min(lowest.ravel()).reshape(mask.shape)
        improved = jnp.minimum(hooked, lowest)
        return improved, jnp.any(improved != parent)

    state = improve((pixel, None))
    parent, _ = jax.lax.while_loop(lambda state: state[1], improve, state)
    first = (mask & (parent == pixel)).reshape(len(mask), math.prod(mask.shape[1:]))
    number = jnp.cumsum(first, axis=-1, dtype=jnp.int32)
    return jnp.where(mask, number.ravel()[parent], 0)
