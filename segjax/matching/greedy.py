"""Greedy assignment: the cheapest pair first, then the cheapest of the remaining ones."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Num

from segjax.matching.assignment import check_cost, list_pairs
from segjax.numerics import broadcast_where
from segjax.typing import Array


def greedy_assignment(
    cost: Num[Array, "*b n m"], *, where: Bool[Array, "..."] | None = None
) -> tuple[Int[jax.Array, "*b k"], Int[jax.Array, "*b k"]]:
    """Greedy assignment: pairs in ascending order of cost, each row and column once.

    The total cost is not minimal, but the pairs are stable: no row and column that are not paired
    would both have a lower cost together. Ties go to the lower row, then to the lower column.

    Args:
      cost: `[*b, n, m]`; pairs that cost NaN or ±inf are forbidden.
      where: Broadcasts to `cost`; False for padding and forbidden pairs, whose costs may be
        anything.

    Returns:
      rows, cols: int32 `[*b, k]` with `k = min(n, m)`: the rows in ascending order and their
      columns, or column -1 for pairs that could not be made, as in `linear_sum_assignment`.

    Raises:
      ValueError: If `cost` has fewer than 2 axes or `where` does not fit.
      TypeError: If `where` is not boolean, or `cost` complex or boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.greedy_assignment(jnp.array([[1, 2], [2, 9]]))
      (Array([0, 1], dtype=int32), Array([0, 1], dtype=int32))

    References:
      Preis, "Linear time 1/2-approximation algorithm for maximum weighted matching in general
      graphs", 1999.
    """
    check_cost(cost)
    allowed = broadcast_where(where, cost.shape) & jnp.isfinite(cost)
    return list_pairs(_match(jnp.asarray(cost), allowed), cost.shape[-1])


@jax.jit
def _match(cost: jax.Array, allowed: jax.Array) -> jax.Array:
    """The column of each row, or -1, int32 `[*b, n]`."""
    n, m = cost.shape[-2:]
    columns = jnp.arange(m, dtype=jnp.int32)

    # Pairs that are each other's cheapest can all be taken at once.
    def take_mutual(state):
        col_of, is_open = state
        chosen = _cheapest(cost, is_open, -1) & _cheapest(cost, is_open, -2)
        col_of = jnp.max(jnp.where(chosen, columns, col_of[..., None]), axis=-1)
        taken = jnp.any(chosen, -1, keepdims=True) | jnp.any(chosen, -2, keepdims=True)
        return col_of, is_open & ~taken

    state = jnp.full_like(cost, -1, jnp.int32, shape=cost.shape[:-1]), allowed
    if not n or not m:
        return state[0]
    return jax.lax.while_loop(lambda state: jnp.any(state[1]), take_mutual, state)[0]


def _cheapest(cost: jax.Array, is_open: jax.Array, axis: int) -> jax.Array:
    """Whether a pair is the first of the cheapest open pairs along an axis."""
    floating = jnp.issubdtype(cost.dtype, jnp.floating)
    largest = np.inf if floating else jnp.iinfo(cost.dtype).max
    least = jnp.min(cost, axis, keepdims=True, where=is_open, initial=largest)
    is_least = is_open & (cost == least)
    return is_least & (jnp.argmax(is_least, axis, keepdims=True) == _index(cost.shape, axis))


def _index(shape: tuple[int, ...], axis: int) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) + axis)
