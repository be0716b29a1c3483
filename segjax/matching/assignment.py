"""Exact assignment: each row gets a column of its own, at the least total cost."""

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
    """A best assignment, and the proof that it is best.

    A *cover* is a choice of rows and columns such that every allowed pair has its row or its column
    in it. As no two pairs share any, there cannot be more pairs than the smallest cover has members
    (and there are as many). The dual variables bound the cost of so many pairs from below.

    Attributes:
      rows, cols: int32 `[*b, k]`, the pairs, `k = min(n, m)`; col -1 where there is none to make.
      cost: `[*b]`, of all pairs. Its gradient with respect to the matrix is 1 at each pair, and 0
        elsewhere (the envelope theorem).
      row_duals, col_duals: `[*b, n]` and `[*b, m]`, in the unit of the cost: `u_i + v_j ≤ cost_ij`,
        and equal for the pairs made. No gradient flows through them. Those of integer costs are
        integers.
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
    """The pairs of rows and columns with the least total cost: `min Σ_k cost[rows_k, cols_k]`.

    As many pairs as can be made come first, the least cost second. Sums run in float64 on any
    device, so integers up to 2³² and sums of float32 costs are exact.

    Args:
      cost: `[*b, n, m]`, numbers of any kind; pairs that cost NaN or ±inf are forbidden.
      where: broadcasts to `cost`; False for padding and forbidden pairs, whose costs may be
        anything. Rows and columns without any allowed pair need no search.

    Returns:
      rows, cols: int32 `[*b, k]` with `k = min(n, m)`; rows ascend, and no row or column comes
      twice. Where no pair can be made any more, a row that is left has column -1.

    Raises:
      ValueError: if `cost` has fewer than 2 axes or `where` does not fit.
      TypeError: if `where` is not boolean, or `cost` complex or boolean.

    Example:
      >>> linear_sum_assignment(jnp.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]]))
      (Array([0, 1, 2], dtype=int32), Array([1, 0, 2], dtype=int32))

    References:
      Crouse, "On implementing 2D rectangular assignment algorithms", 2016; Jonker and
      Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
      problems", 1987 (the start).
    """
    solution = _solve(cost, where)
    return list_pairs(solution.col_of, cost.shape[-1])


def solve_assignment(
    cost: Num[Array, "*b n m"], *, where: Bool[Array, "..."] | None = None
) -> Assignment:
    """The assignment of `linear_sum_assignment`, with its cost and the proof that it is best.

    Args:
      cost: `[*b, n, m]`, as there.
      where: broadcasts to `cost`, as there.

    Returns:
      An `Assignment`. Its `cost` is differentiable; that of integers is an integer.

    Raises:
      ValueError, TypeError: as there.

    Example:
      >>> cost = jnp.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
      >>> float(solve_assignment(cost).cost)
      5.0
      >>> jax.grad(lambda cost: solve_assignment(cost).cost)(cost)
      Array([[0., 1., 0.],
             [1., 0., 0.],
             [0., 0., 1.]], dtype=float32)

    References:
      as there; Danskin, "The theory of max-min, with applications", 1966 (the gradient).
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
    """The pairs by ascending row, as many as there are rows or columns, whichever are fewer.

    The rows are those that have a column and then the first of those that have none.
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
    """A ValueError or TypeError for what is not a matrix of real numbers."""
    if cost.ndim < 2:
        raise ValueError(f"cost has shape {cost.shape}; due is [*b, n, m]")
    if not any(jnp.issubdtype(cost.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"cost is {cost.dtype}; due are real numbers")


def _solve(cost: Array, where: Array | None) -> Solution:
    """The solutions of a batch, the dual variables in the precision that the cost deserves."""
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
    """Where there are no rows, no columns, or no problems."""
    b, n, m = cost.shape
    free, zeros, uncovered = (
        [jnp.full((b, size), value, dtype) for size in (n, m)]
        for value, dtype in ((-1, jnp.int32), (0, _dual_dtype(cost)), (False, bool))
    )
    return Solution(*free, *zeros, *uncovered)


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
