"""Exact solution of one assignment problem by shortest augmenting paths, in float64."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A power of two, so that costs stay exact and sums of them do not overflow.
_SCALE = 2.0**-40
_NONE = np.int32(-1)


class Solution(NamedTuple):
    """The pairs, with dual variables and covers that prove them optimal.

    Attributes:
      col_of: int32 `[n]`, column of each row; -1 without one.
      row_of: int32 `[m]`, row of each column; -1 without one.
      u, v: float64 `[n]` and `[m]`, dual variables of rows and columns.
      row_cover, col_cover: bool `[n]` and `[m]`, True as often as there are pairs.
    """

    col_of: jax.Array
    row_of: jax.Array
    u: jax.Array
    v: jax.Array
    row_cover: jax.Array
    col_cover: jax.Array

    def transpose(self) -> "Solution":
        return Solution(self.row_of, self.col_of, self.v, self.u, self.col_cover, self.row_cover)


def solve(cost: jax.Array, where: jax.Array | None) -> Solution:
    """Finds the most pairs, and the cheapest among such choices. Needs 64 bits to be enabled.

    Args:
      cost: `[n, m]`, n and m above 0; pairs that are not finite are forbidden.
      where: bool `[n, m]`, False for forbidden pairs; None for none.
    """
    n, m = cost.shape
    allowed = jnp.isfinite(cost) if where is None else where & jnp.isfinite(cost)
    cost = jnp.where(allowed, cost.astype(np.float64) * _SCALE, np.inf)
    if n > m:
        return _solve_wide(cost.T).transpose()
    if n < m:
        return _solve_wide(cost)
    # Every row costs a search, so the side with fewer members becomes the rows.
    flip = jnp.sum(jnp.any(allowed, axis=1)) > jnp.sum(jnp.any(allowed, axis=0))
    solution = _solve_wide(jnp.where(flip, cost.T, cost))
    return jax.tree.map(functools.partial(jnp.where, flip), solution.transpose(), solution)


def _solve_wide(cost: jax.Array) -> Solution:
    """Solves problems with at least as many columns as rows, where forbidden pairs cost inf.

    In the search a forbidden pair costs a penalty that exceeds all other costs together. A dual
    variable is a multiple of it (0, or 1 for a row, -1 for a column) plus a remainder: the
    multiples prove that no more pairs can be made, the remainders that these are the cheapest.
    """
    n, m = cost.shape
    allowed = cost < np.inf
    largest = jnp.max(jnp.where(allowed, jnp.abs(cost), 0))
    penalty = jnp.where(largest > 0, 8 * n * largest, _SCALE)
    # If all columns will be taken, their dual variables need not start at 0.
    balanced = jnp.all(allowed) & (n == m)
    v = jnp.where(balanced, jnp.min(cost, axis=0), 0)
    wanted, row_of, col_of = _initial_pairs(cost - v)
    v, row_of, col_of = _augment_all(cost, penalty, wanted, v, row_of, col_of)

    paid = jnp.minimum(cost[jnp.arange(n), col_of], penalty)
    made = wanted & (paid < penalty)
    u = jnp.where(wanted, paid - v[col_of], penalty)
    row_level, col_level = jnp.round(u / penalty), jnp.round(v / penalty)
    u, v = u - row_level * penalty, v - col_level * penalty
    shift = jnp.where(balanced, jnp.max(v), 0)
    return Solution(
        jnp.where(made, col_of, _NONE),
        jnp.where((row_of >= 0) & made[row_of], row_of, _NONE),
        (u + shift) / _SCALE,
        (v - shift) / _SCALE,
        row_level == 0,
        col_level == -1,
    )


def _initial_pairs(reduced: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gives each column to the first of the rows whose cheapest column it is.

    Returns:
      Which rows have any allowed pair, the row of each column, and the column of each row.
    """
    n, m = reduced.shape
    rows, columns = jnp.arange(n, dtype=np.int32), jnp.arange(m, dtype=np.int32)
    least = jnp.min(reduced, axis=1, keepdims=True)
    choice = jnp.min(jnp.where(reduced == least, columns, m), axis=1)
    wanted = least[:, 0] < np.inf
    first = jnp.full_like(columns, n).at[choice].min(jnp.where(wanted, rows, n))
    row_of = jnp.where(first < n, first, _NONE)
    return wanted, row_of, jnp.where(wanted & (row_of[choice] == rows), choice, _NONE)


def _augment_all(
    cost: jax.Array,
    penalty: jax.Array,
    wanted: jax.Array,
    v: jax.Array,
    row_of: jax.Array,
    col_of: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gives every wanted row a column, one row after the other; returns v, row_of and col_of.

    Under vmap, problems wait for each other. A problem without rows left must not enter the inner
    loops, which would not end for it: hence `is_left`.
    """
    n = len(wanted)
    rows = jnp.arange(n, dtype=np.int32)

    def first_left(col_of):
        return _min(jnp.where(wanted & (col_of < 0), rows, n))

    def place(state):
        v, row_of, col_of, root = state
        is_left = root < n
        end, distance, parent = _shortest_path(cost, penalty, v, row_of, root, is_left)
        v = v + jnp.minimum(distance - distance[end], 0)
        row_of, col_of = _flip_pairs(row_of, col_of, parent, root, end, is_left)
        return v, row_of, col_of, first_left(col_of)

    state = v, row_of, col_of, first_left(col_of)
    return lax.while_loop(lambda state: state[3] < n, place, state)[:3]


def _shortest_path(
    cost: jax.Array,
    penalty: jax.Array,
    v: jax.Array,
    row_of: jax.Array,
    root: jax.Array,
    is_left: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Dijkstra's search from the row `root` for the nearest free column.

    Returns:
      That column; the distance of every column over the visited rows, correct up to the distance of
      the free one; and the row before every column.
    """
    columns = jnp.arange(len(v), dtype=np.int32)

    def visit(state):
        distance, parent, row, offset, _, _ = state
        through_row = jnp.minimum(cost[row], penalty) - v + offset
        distance = jnp.minimum(distance, through_row)
        # A visited column stores its parent as ~parent, which is negative.
        is_open = parent >= 0
        parent = jnp.where(is_open & (through_row == distance), row, parent)
        candidates = jnp.where(parent >= 0, distance, np.inf)
        least = _min(candidates)
        nearest = _min(jnp.where(candidates == least, columns, len(columns)))
        parent = lax.dynamic_update_index_in_dim(parent, ~parent[nearest], nearest, 0)
        row = row_of[nearest]
        offset = least - (jnp.minimum(cost[row, nearest], penalty) - v[nearest])
        return distance, parent, row, offset, nearest, row >= 0

    distance, parent, _, _, end, _ = lax.while_loop(
        lambda state: state[-1],
        visit,
        (
            jnp.full_like(v, np.inf),
            jnp.zeros_like(row_of),
            root,
            jnp.zeros_like(v, shape=()),
            jnp.zeros_like(root),
            is_left,
        ),
    )
    return end, distance, jnp.maximum(parent, ~parent)


def _flip_pairs(
    row_of: jax.Array,
    col_of: jax.Array,
    parent: jax.Array,
    root: jax.Array,
    end: jax.Array,
    is_left: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Gives each column on the path to its parent, whose own column goes to the row before."""

    def flip(state):
        row_of, col_of, column, _ = state
        row = parent[column]
        return (
            lax.dynamic_update_index_in_dim(row_of, row, column, 0),
            lax.dynamic_update_index_in_dim(col_of, column, row, 0),
            col_of[row],
            row != root,
        )

    return lax.while_loop(lambda state: state[-1], flip, (row_of, col_of, end, is_left))[:2]


def _min(values: jax.Array) -> jax.Array:
    """The minimum, computed elementwise over 16 slices first.

    On a CPU this is one kernel, whereas XLA makes three of a minimum over a long axis.
    """
    largest = np.inf if values.dtype == np.float64 else np.iinfo(values.dtype).max
    padded = jnp.pad(values, (0, -len(values) % 16), constant_values=largest)
    return jnp.min(functools.reduce(jnp.minimum, jnp.split(padded, 16)))
