"""Histograms of pairs of labels, for confusion matrices and panoptic quality."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Integer

from segjax.typing import Array

# For CPUs: a few steps that use the same memory; in each, the cores fill several tables at once. In
# a table, pixels of two places alternate: neighbours are often alike, and adding to the same cell
# waits for the previous sum.
_STEPS, _TABLES, _INTERLEAVED = 4, 4, 2


@functools.partial(jax.jit, static_argnames="shape")
def count_pairs(
    rows: Integer[Array, "*b"],
    columns: Integer[Array, "*b"],
    shape: tuple[int, int],
    *,
    where: Bool[Array, "*b"] | None = None,
) -> Int[jax.Array, "rows columns"]:
    """Table of `shape` with the number of pixels of each (row, column), where `where` is True."""
    height, width = shape
    split, left = [], rows.size
    for most in (_STEPS, _TABLES, _INTERLEAVED):
        split.append(math.gcd(left, most))
        left //= split[-1]

    def add(table, rows, columns, where):
        # As unsigned integers, negative numbers become too large.
        rows, columns = rows.astype(jnp.uint32), columns.astype(jnp.uint32)
        inside = (rows < height) & (columns < width)
        if where is not None:
            inside &= where
        cells = jnp.where(inside, rows * width + columns, height * width)
        return table.at[cells.T.ravel()].add(1, mode="drop")

    def step(tables, pixels):
        parts = (jax.tree.map(lambda x, i=i: x[i], pixels) for i in range(len(tables)))
        return [add(table, *part) for table, part in zip(tables, parts, strict=True)], None

    pixels = jax.tree.map(lambda x: x.reshape(*split, left), (rows, columns, where))
    empty = jnp.zeros_like(rows, jnp.int32, shape=height * width)
    tables, _ = jax.lax.scan(step, [empty] * split[1], pixels)
    return functools.reduce(jnp.add, tables).reshape(shape)
