"""Checksums of arrays, independent of how they are sharded over devices and processes."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def checksums(tree: Any) -> dict[str, int]:
    """A checksum of each array: `Σᵢ (2i + 1) bᵢ mod 2⁶⁴`, with the bits bᵢ of element i.

    The factors are odd, so every change of a single element changes the sum. Each process sums the
    elements that it holds, so the checksum does not depend on the devices that an array is sharded
    over. All processes must call this function.

    Args:
      tree: Pytree of NumPy or JAX arrays of any shape.

    Returns:
      Checksums by the path of each array, such as "params/conv/kernel".

    Example:
      >>> checksums({"a": np.array([1, 0, 2], np.int32)})
      {'a': 11}
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    sums = np.array([_local_sum(leaf) for leaf in leaves.values()], np.uint64)
    if jax.process_count() > 1:  # as pairs of 32 bits: JAX has no wider integers here
        parts = np.asarray(multihost_utils.process_allgather(sums.view(np.uint32)))
        sums = np.ascontiguousarray(parts).view(np.uint64).sum(0)
    return dict(zip(leaves, sums.tolist(), strict=True))


def _local_sum(array: Any) -> int:
    """The sum over the elements that this process is responsible for."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        places = np.arange(array.size).reshape(array.shape)
        parts = [(s.data, places[s.index]) for s in array.addressable_shards if s.replica_id == 0]
    elif jax.process_index() == 0:
        parts = [(array, np.arange(np.size(array)))]
    else:
        parts = []
    return sum(_sum(np.asarray(data), places) for data, places in parts) % 2**64


def _sum(data: np.ndarray, places: np.ndarray) -> int:
    bits = np.ascontiguousarray(data).reshape(-1).view(f"u{data.itemsize}")
    return int(np.dot(bits.astype(np.uint64), 2 * places.reshape(-1).astype(np.uint64) + 1))
