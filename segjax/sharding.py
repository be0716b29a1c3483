"""What is done for each example by itself, under a mesh: on its own device."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec


def each_shard(function: Callable[..., Any], *arguments: Any, shared: tuple = ()) -> Any:
    """`function(*shared, *arguments)`, on every device of the mesh for its share of the examples.

    A loop whose length depends on its examples, or that walks over them, must not be left to the
    partitioner of `jax.jit`: it would make collectives inside the loop. Under `jax.set_mesh(mesh)`
    the call becomes a `jax.shard_map` over the first axis of the arrays, which has none. Without a
    mesh, inside `pmap` or `shard_map`, and where the examples do not divide by the devices, it is
    the plain call.

    Args:
      function: of arrays whose first axis lists examples, each treated by itself; its results list
        them likewise.
      *arguments: pytrees of such arrays.
      shared: pytrees of arrays that every example is treated with.

    Returns:
      What `function` returns.

    Example:
      >>> each_shard(lambda x: 2 * x, jax.numpy.arange(3))
      Array([0, 2, 4], dtype=int32)
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.axis_sizes)
    examples = {len(leaf) for leaf in jax.tree.leaves(arguments)}
    if devices == 1 or AxisType.Manual in mesh.axis_types or any(n % devices for n in examples):
        return function(*shared, *arguments)
    spec = PartitionSpec(mesh.axis_names)
    specs = (PartitionSpec(),) * len(shared) + (spec,) * len(arguments)
    return jax.shard_map(function, in_specs=specs, out_specs=spec)(*shared, *arguments)
