"""Mapping over the valid entries of padded arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from segjax.typing import Array


def of_valid(
    function: Callable[..., Any], valid: Bool[Array, "n"], *arrays: Any, chunk: int
) -> Any:
    """`function(*arrays)` for the valid entries, and 0 for the others.

    On a CPU, entries are processed in chunks, and chunks without a valid entry are skipped;
    elsewhere all entries are processed at once.

    Args:
      function: function of arrays with entries along the first axis, each treated by itself, whose
        results have entries along their first axis too.
      valid: `[n]`, False for padding.
      *arrays: arrays `[n, ...]`.
      chunk: number of entries that a CPU processes at a time.

    Returns:
      The results of `function`, 0 for entries that are not valid.

    Example:
      >>> of_valid(lambda x: 1 / x, jnp.array([True, False]), jnp.array([4.0, 0.0]), chunk=1)
      Array([0.25, 0.  ], dtype=float32)
    """
    entries = len(valid)

    def masked(valid, tree):
        shown = lambda x: jnp.expand_dims(valid, range(1, x.ndim))
        return jax.tree.map(lambda x: jnp.where(shown(x), x, jnp.zeros((), x.dtype)), tree)

    def of_some(valid, *arrays):
        # What goes in is masked too: padding has no gradient, whatever it holds.
        return masked(valid, function(*masked(valid, arrays)))

    def nothing(valid, *arrays):
        # Made from an argument, so that under `shard_map` it varies over the same devices.
        shapes = jax.eval_shape(function, *arrays)
        return jax.tree.map(lambda x: jnp.zeros_like(arrays[0], x.dtype, shape=x.shape), shapes)

    def in_turn(*arrays):
        chunks = -(-entries // chunk)
        fill = lambda x: [(0, chunks * chunk - entries), *[(0, 0)] * (x.ndim - 1)]
        split = [jnp.pad(x, fill(x)).reshape(chunks, chunk, *x.shape[1:]) for x in arrays]

        def choose(some):
            return jax.lax.cond(jnp.any(some[0]), of_some, nothing, *some)

        join = lambda x: jax.lax.collapse(x, 0, 2)[:entries]
        return jax.tree.map(join, jax.lax.map(choose, split))

    return jax.lax.platform_dependent(valid, *arrays, cpu=in_turn, default=of_some)
