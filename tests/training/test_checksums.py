"""Checksums: they tell every change within an element, and not how an array is spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from segjax.training import checksums as module
from segjax.training.checksums import checksums


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.uint8, bool])
def test_each_bit_counts(dtype):
    whole = np.arange(12).reshape(3, 4).astype(dtype)
    before = checksums(whole)
    for place in range(whole.nbytes):
        for bit in range(8):
            changed = bytearray(whole.tobytes())
            changed[place] ^= 1 << bit
            assert checksums(np.frombuffer(changed, whole.dtype).reshape(3, 4)) != before


def test_the_order_counts():
    assert checksums({"a": np.array([1.0, 2.0])}) != checksums({"a": np.array([2.0, 1.0])})


@pytest.mark.parametrize("spec", [(None, "x"), ("y", "x"), (("x", "y"),), ()])
def test_parts_sum_to_the_whole(spec, monkeypatch):
    """As where the processes hold parts of an array, and copies of parts."""
    values = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    spread = jax.device_put(values, NamedSharding(mesh, PartitionSpec(*spec)))
    whole = module._local_sum(values)
    monkeypatch.setattr(type(spread), "is_fully_addressable", False)
    assert module._local_sum(spread) == whole
