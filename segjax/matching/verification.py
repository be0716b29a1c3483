"""Verification that an assignment is optimal."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Num

from segjax.matching.assignment import Assignment
from segjax.numerics import broadcast_where
from segjax.typing import Array


def verify_assignment(
    cost: Num[Array, "*b n m"],
    assignment: Assignment,
    *,
    where: Bool[Array, "..."] | None = None,
) -> Bool[jax.Array, "*b"]:
    """Whether the duals of an assignment prove it optimal: most pairs, then least cost.

    Most pairs (König): the cover contains the row or the column of every allowed pair, exactly one
    of them for every pair of the assignment, and nothing else. Least cost (duality):
    `u_i + v_j ≤ cost_ij` for every allowed pair with exactly one of the two in the cover, with `=`
    for pairs of the assignment; and rows and columns outside the cover have duals of at most 0, or
    0 without a pair. Any other choice of as many pairs then costs at least the sum of the duals.

    Args:
      cost: `[*b, n, m]`; pairs that cost NaN or ±inf are forbidden.
      assignment: Record returned by `solve_assignment`.
      where: Broadcasts to `cost`; False for padding and forbidden pairs.

    Returns:
      bool `[*b]`. Integers are compared exactly, if their duals fit their dtype; floats up to 8
      units in the last place of the largest number.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> cost = jnp.array([[1, 2], [2, 1]])
      >>> bool(matching.verify_assignment(cost, matching.solve_assignment(cost)))
      True
      >>> bool(matching.verify_assignment(cost.at[0, 0].set(4), matching.solve_assignment(cost)))
      False

    References:
      Burkard, Dell'Amico and Martello, "Assignment problems", 2009, chapters 2 and 4.
    """
    *batch, n, m = cost.shape
    if assignment.row_duals.shape != (*batch, n) or assignment.col_duals.shape != (*batch, m):
        raise ValueError(
            f"assignment: expected duals of shapes {(*batch, n)}, {(*batch, m)}, got "
            f"{assignment.row_duals.shape}, {assignment.col_duals.shape}"
        )
    cost, assignment = jax.lax.stop_gradient((jnp.asarray(cost), assignment))
    allowed = broadcast_where(where, cost.shape) & jnp.isfinite(cost)
    made = _made(assignment, n, m)
    has_col, has_row = jnp.any(made, axis=-1), jnp.any(made, axis=-2)
    row_cover, col_cover = assignment.row_cover, assignment.col_cover
    covered = row_cover[..., :, None] | col_cover[..., None, :]
    covered_once = row_cover[..., :, None] ^ col_cover[..., None, :]
    most = (
        _all(~allowed | covered)
        & _all(~made | (allowed & covered_once))
        & jnp.all(~row_cover | has_col, axis=-1)
        & jnp.all(~col_cover | has_row, axis=-1)
        & jnp.all(jnp.sum(made, axis=-2) <= 1, axis=-1)
        & (jnp.sum(made, axis=(-2, -1)) == jnp.sum(assignment.cols >= 0, axis=-1))
    )

    with jax.enable_x64(True):
        dual_dtype = assignment.row_duals.dtype
        u, v = (jnp.asarray(x, jnp.float64) for x in (assignment.row_duals, assignment.col_duals))
        cost = jnp.where(allowed, jnp.asarray(cost, jnp.float64), 0)
        sizes = [jnp.max(jnp.abs(x), axis=-1, initial=0) for x in (u, v)]
        sizes.append(jnp.max(jnp.abs(cost), axis=(-2, -1), initial=0))
        exact = jnp.issubdtype(dual_dtype, jnp.integer)
        unit = 0.0 if exact else 8 * float(jnp.finfo(dual_dtype).eps)
        tolerance = (unit * jnp.max(jnp.stack(sizes), axis=0))[..., None]
        slack = cost - u[..., :, None] - v[..., None, :]
        cheapest = (
            _all(~(allowed & covered_once) | (slack >= -tolerance[..., None]))
            & _all(~made | (slack <= tolerance[..., None]))
            & jnp.all(row_cover | _is_bound(u, has_col, tolerance), axis=-1)
            & jnp.all(col_cover | _is_bound(v, has_row, tolerance), axis=-1)
        )
    return most & cheapest


def _made(assignment: Assignment, n: int, m: int) -> jax.Array:
    """Whether each pair belongs to the assignment, bool `[*b, n, m]`."""
    is_row = assignment.rows[..., :, None] == jnp.arange(n)
    col_of = jnp.max(jnp.where(is_row, assignment.cols[..., :, None], -1), axis=-2, initial=-1)
    return col_of[..., None] == jnp.arange(m)


def _is_bound(dual: jax.Array, has_pair: jax.Array, tolerance: jax.Array) -> jax.Array:
    return (dual <= tolerance) & (has_pair | (dual >= -tolerance))


def _all(matrix: jax.Array) -> jax.Array:
    return jnp.all(matrix, axis=(-2, -1))
