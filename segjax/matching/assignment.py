"""Optimal assignment: pairs of rows and columns with the least total cost."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Num

from segjax.mapping import join_vmap, map_examples
from segjax.matching.augmenting_paths import Solution, solve
from segjax.numerics import accumulation_dtype, broadcast_where
from segjax.typing import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignment:
    """An optimal assignment with a proof of its optimality.

    A *cover* is a set of rows and columns such that every allowed pair has its row or its column in
    it. No two pairs share a row or column, so there are at most as many pairs as members of the
    smallest cover (and there are as many). The duals bound the cost of so many pairs from below.

    Attributes:
      rows, cols: int32 `[*b, k]` with `k = min(n, m)`, the pairs; column -1 for pairs that could
        not be made.
      cost: `[*b]`, total cost of the pairs. Its gradient with respect to the matrix is 1 at each
        pair and 0 elsewhere (envelope theorem).
      row_duals, col_duals: `[*b, n]` and `[*b, m]`, dual variables in the units of the cost:
        `u_i + v_j ≤ cost_ij`, with equality for pairs of the assignment; integers for integer
        costs, and without gradient.
      row_cover, col_cover: bool `[*b, n]` and `[*b, m]`, the smallest cover.
    """

    rows: Int[Array, "*b k"]
    cols: Int[Array, "*b k"]
    cost: Num[Array, "*b"]
    row_duals: Num[Array, "*b n"]
    col_duals: Num[Array, "*b m"]
    row_cover: Bool[Array, "*b n"]
    col_cover: Bool[Array, "*b m"]


def linear_sum_assignment(
    cost: Num[Array, "*b n m"], *, where: Bool[Array, "..."] | None = None
) -> tuple[Int[jax.Array, "*b k"], Int[jax.Array, "*b k"]]:
    """Optimal assignment of rows to columns: `min Σ_k cost[rows_k, cols_k]`, as SciPy's.

    Makes as many pairs as possible, and among these choices the cheapest. Sums are computed in
    float64 on every device, so integers up to 2³² and sums of float32 costs are exact.

    Args:
      cost: `[*b, n, m]`, integers or floats; pairs that cost NaN or ±inf are forbidden.
      where: Broadcasts to `cost`; False for padding and forbidden pairs, whose costs may be
        anything. Rows and columns without any allowed pair cost no time.

    Returns:
      rows, cols: int32 `[*b, k]` with `k = min(n, m)`: the rows in ascending order and their
      columns, or column -1 for rows that could not be paired.

    Raises:
      ValueError: If `cost` has fewer than 2 axes or `where` does not fit.
      TypeError: If `where` is not boolean, or `cost` complex or boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> matching.linear_sum_assignment(jnp.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]]))
      (Array([0, 1, 2], dtype=int32), Array([1, 0, 2], dtype=int32))

    References:
      Crouse, "On implementing 2D rectangular assignment algorithms", 2016; Jonker and
      Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
      problems", 1987 (initialisation).
    """
    solution = _solve(cost, where)
    return list_pairs(solution.col_of, cost.shape[-1])


def solve_assignment(
    cost: Num[Array, "*b n m"], *, where: Bool[Array, "..."] | None = None
) -> Assignment:
    """Optimal assignment with its differentiable cost, dual variables and proof of optimality.

    Args:
      cost: `[*b, n, m]`, integers or floats; pairs that cost NaN or ±inf are forbidden.
      where: Broadcasts to `cost`; False for padding and forbidden pairs, whose costs may be
        anything.

    Returns:
      The pairs of `linear_sum_assignment`, their total cost, and the dual variables.

    Raises:
      ValueError: If `cost` has fewer than 2 axes or `where` does not fit.
      TypeError: If `where` is not boolean, or `cost` complex or boolean.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> cost = jnp.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
      >>> float(matching.solve_assignment(cost).cost)
      5.0
      >>> jax.grad(lambda cost: matching.solve_assignment(cost).cost)(cost)
      Array([[0., 1., 0.],
             [1., 0., 0.],
             [0., 0., 1.]], dtype=float32)

    References:
      Crouse, "On implementing 2D rectangular assignment algorithms", 2016; Danskin, "The theory of
      max-min, with applications", 1966 (gradient).
    """
    solution = _solve(cost, where)
    rows, cols = list_pairs(solution.col_of, cost.shape[-1])
    u, v = solution.u, solution.v
    total = jnp.sum(_costs_of_pairs(jnp.asarray(cost, u.dtype), rows, cols), axis=-1, dtype=u.dtype)
    return Assignment(rows, cols, total, u, v, solution.row_cover, solution.col_cover)


def _costs_of_pairs(cost: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    n, m = cost.shape[-2:]
    flat = cost.reshape(*cost.shape[:-2], n * m)
    paid = jnp.take_along_axis(flat, rows * m + jnp.maximum(cols, 0), axis=-1)
    return jnp.where(cols >= 0, paid, 0)


def list_pairs(col_of: jax.Array, m: int) -> tuple[jax.Array, jax.Array]:
    """The pairs in ascending order of rows, as many as rows or columns, whichever are fewer.

    All rows with a column are listed, and then the first ones without.
    """
    n = col_of.shape[-1]
    if n <= m:
        return jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), col_of.shape), col_of
    has_col = col_of >= 0
    spare = m - jnp.sum(has_col, axis=-1, keepdims=True)
    kept = has_col | (jnp.cumsum(~has_col, axis=-1) <= spare)
    rows = jnp.nonzero(kept.reshape(-1), size=kept.size // n * m)[0] % n
    rows = rows.astype(jnp.int32).reshape(*col_of.shape[:-1], m)
    return rows, jnp.take_along_axis(col_of, rows, axis=-1)


def check_cost(cost: Array) -> None:
    """Raises a ValueError or TypeError if `cost` is not a matrix of real numbers."""
    if cost.ndim < 2:
        raise ValueError(f"cost: expected shape [*b, n, m], got {cost.shape}")
    if not any(jnp.issubdtype(cost.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"cost: expected integers or floats, got {cost.dtype}")


def _solve(cost: Array, where: Array | None) -> Solution:
    """The solutions of a batch, with duals in a dtype that fits the cost."""
    check_cost(cost)
    *batch, n, m = cost.shape
    problems = math.prod(batch), n, m
    if where is not None:
        where = broadcast_where(where, cost.shape).reshape(problems)
    cost = jax.lax.stop_gradient(jnp.asarray(cost)).reshape(problems)
    solution = _solve_batch(cost, where) if cost.size else _no_pairs(cost)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), solution)


@join_vmap
@jax.jit
def _solve_batch(cost: jax.Array, where: jax.Array | None) -> Solution:
    """The solutions of problems `[b, n, m]`."""
    dtype = _dual_dtype(cost)
    with jax.enable_x64(True):
        solution = map_examples(solve, cost, where)
        return solution._replace(u=_narrow(solution.u, dtype), v=_narrow(solution.v, dtype))


def _no_pairs(cost: jax.Array) -> Solution:
    """The solutions without any rows, columns or problems."""
    b, n, m = cost.shape
    unpaired, zeros, uncovered = (
        [jnp.full((b, size), value, dtype) for size in (n, m)]
        for value, dtype in ((-1, jnp.int32), (0, _dual_dtype(cost)), (False, bool))
    )
    return Solution(*unpaired, *zeros, *uncovered)


def _dual_dtype(cost: jax.Array) -> jnp.dtype:
    """At least float32 for floats, at least int32 for integers."""
    if jnp.issubdtype(cost.dtype, jnp.floating):
        return accumulation_dtype(cost)
    return jax.dtypes.canonicalize_dtype(jnp.promote_types(cost.dtype, jnp.int32))


def _narrow(duals: jax.Array, dtype: jnp.dtype) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.integer):
        limits = jnp.iinfo(dtype)
        duals = jnp.clip(jnp.round(duals), limits.min, limits.max)
    return duals.astype(dtype)
