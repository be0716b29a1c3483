"""Map functions over examples, on a CPU in loops; and a sort that is fast on all devices."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Bool, Int, Shaped

from segjax.typing import Array


def map_examples(
    function: Callable[..., Any], *arrays: Any, together: Callable[..., Any] | None = None
) -> Any:
    """Applies `function` to each example: one after the other on a CPU, elsewhere all at once.

    On a CPU an example's values stay in the cache, and no example waits for one whose loops run
    longer.

    Args:
      function: Function of one example.
      *arrays: Pytrees of arrays `[n, ...]`, whose first axis lists the examples.
      together: The same function of all examples at once; None for `jax.vmap(function)`.

    Returns:
      The results of `function`, stacked along a new first axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.mapping import map_examples
      >>> map_examples(jnp.sum, jnp.array([[1, 2], [3, 4]]))
      Array([3, 7], dtype=int32)
    """

    def one_by_one(*arrays):
        return lax.map(lambda example: function(*example), arrays)

    together = jax.vmap(function) if together is None else together
    return lax.platform_dependent(*arrays, cpu=one_by_one, default=together)


def map_valid(
    function: Callable[..., Any], valid: Bool[Array, "n"], *arrays: Any, chunk: int
) -> Any:
    """Applies `function` to the valid entries of padded arrays; the others give 0.

    A CPU takes one chunk of entries after the other, and skips chunks without valid entries;
    elsewhere all entries are taken at once. Padding gets no gradient, whatever it holds.

    Args:
      function: Function of arrays `[m, ...]` that treats each entry by itself, for any m.
      valid: `[n]`, False for padding.
      *arrays: Arrays `[n, ...]`.
      chunk: The number of entries that a CPU takes at a time.

    Returns:
      The results of `function`, `[n, ...]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.mapping import map_valid
      >>> map_valid(lambda x: 1 / x, jnp.array([True, False]), jnp.array([4.0, 0.0]), chunk=1)
      Array([0.25, 0.  ], dtype=float32)
    """
    entries = len(valid)

    def mask(valid, tree):
        expand = lambda x: jnp.expand_dims(valid, range(1, x.ndim))
        return jax.tree.map(lambda x: jnp.where(expand(x), x, jnp.zeros((), x.dtype)), tree)

    def masked_function(valid, *arrays):
        return mask(valid, function(*mask(valid, arrays)))

    def zeros(valid, *arrays):
        # Made from an argument, so that under `shard_map` it varies over the same devices.
        shapes = jax.eval_shape(function, *arrays)
        return jax.tree.map(lambda x: jnp.zeros_like(arrays[0], x.dtype, shape=x.shape), shapes)

    def chunk_by_chunk(*arrays):
        chunks = -(-entries // chunk)
        padding = lambda x: [(0, chunks * chunk - entries), *[(0, 0)] * (x.ndim - 1)]
        split = [jnp.pad(x, padding(x)).reshape(chunks, chunk, *x.shape[1:]) for x in arrays]

        def skip_padding(arrays):
            return lax.cond(jnp.any(arrays[0]), masked_function, zeros, *arrays)

        join = lambda x: lax.collapse(x, 0, 2)[:entries]
        return jax.tree.map(join, lax.map(skip_padding, split))

    return lax.platform_dependent(valid, *arrays, cpu=chunk_by_chunk, default=masked_function)


def map_shards(function: Callable[..., Any], *arrays: Any, shared: tuple = ()) -> Any:
    """Applies `function` on every device of the mesh to that device's examples.

    Left to the partitioner of `jax.jit`, a loop whose length depends on its examples, or that walks
    over them, would hold collectives. Under `jax.set_mesh(mesh)` this is a `jax.shard_map` over the
    first axis of the arrays, which holds none. It is the plain call without a mesh, inside `pmap`
    or `shard_map`, and where the number of examples is no multiple of the number of devices.

    Args:
      function: Function of `(*shared, *arrays)` that treats each example by itself.
      *arrays: Pytrees of arrays `[n, ...]`, whose first axis lists the examples.
      shared: Pytrees of arrays of any shape, the same for every example.

    Returns:
      `function(*shared, *arrays)`: pytrees of arrays `[n, ...]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.mapping import map_shards
      >>> map_shards(lambda x: 2 * x, jnp.arange(3))
      Array([0, 2, 4], dtype=int32)
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.axis_sizes)
    examples = {len(leaf) for leaf in jax.tree.leaves(arrays)}
    if devices == 1 or AxisType.Manual in mesh.axis_types or any(n % devices for n in examples):
        return function(*shared, *arrays)
    spec = PartitionSpec(mesh.axis_names)
    specs = (PartitionSpec(),) * len(shared) + (spec,) * len(arrays)
    return jax.shard_map(function, in_specs=specs, out_specs=spec)(*shared, *arrays)


def join_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of many examples which `jax.vmap` calls once, with the examples of all its calls.

    `jax.vmap` of a loop runs every call to the end of the longest, carries what was computed of
    each, and turns loops over examples inside out. The joined examples keep their own loops.

    Args:
      function: Function of pytrees of arrays `[n, ...]`, whose first axis lists examples treated
        by themselves, for any n; its results list them likewise.

    Returns:
      The same function, with its own rule under `jax.vmap`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax.mapping import join_vmap
      >>> double = join_vmap(lambda x: 2 * x)
      >>> jax.vmap(double)(jnp.arange(4).reshape(2, 2))
      Array([[0, 2],
             [4, 6]], dtype=int32)
    """
    joined = custom_vmap(function)

    @joined.def_vmap
    def _(calls, is_batched, *arrays):
        def join(batched, x):
            x = x if batched else jnp.broadcast_to(x, (calls, *x.shape))
            return lax.collapse(x, 0, 2)

        results = joined(*jax.tree.map(join, tuple(is_batched), arrays))
        split = lambda x: x.reshape(calls, len(x) // calls, *x.shape[1:])
        return jax.tree.map(split, results), jax.tree.map(lambda _: True, results)

    return joined


def stable_argsort(
    keys: Shaped[Array, " n"], *, ties: Bool[Array, " n"] | None = None
) -> Int[jax.Array, " n"]:
    """The indices that sort `keys` in ascending order; equal keys keep their order.

    Args:
      keys: `[n]`, floats or integers; of 32 bits for speed. −0 equals 0.
      ties: `[n]`, sorts equal keys: False comes before True. None for no such order.

    Returns:
      int32 `[n]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.mapping import stable_argsort
      >>> stable_argsort(jnp.array([2, 1, 2]), ties=jnp.array([True, True, False]))
      Array([1, 2, 0], dtype=int32)
    """

    def by_tuples(keys, ties):
        index = lax.iota(jnp.int32, keys.size)
        operands = [x for x in (keys, ties, index) if x is not None]
        return lax.sort(operands, num_keys=len(operands) - 1)[-1]

    def by_words(keys, ties):
        if keys.dtype == jnp.float32:
            # Integers in the order of the floats.
            bits = lax.bitcast_convert_type(jnp.where(keys == 0, 0, keys), jnp.int32)
            keys = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        with jax.enable_x64(True):
            words = keys.astype(jnp.int64) << 32 | lax.iota(jnp.int64, keys.size)
            if ties is not None:
                words |= ties.astype(jnp.int64) << 31
            return (lax.sort(words) & 0x7FFFFFFF).astype(jnp.int32)

    keys = jnp.asarray(keys)
    if keys.dtype not in (jnp.float32, jnp.int32):
        return by_tuples(keys, ties)
    # On a CPU a sort of plain words is five times as fast as one of tuples.
    return lax.platform_dependent(keys, ties, cpu=by_words, default=by_tuples)
