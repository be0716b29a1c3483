"""What the metrics have in common that are sums over examples."""

import operator
from typing import TypeVar

import jax

T = TypeVar("T")


class Sums:
    """A pytree of sums: those of batches, devices and hosts add up, and `compute` divides last.

    An integer sum holds 2³¹ − 1 on the device; sums over more belong on the host, as int64.
    """

    def merge(self: T, other: T) -> T:
        """The metric of both sets of examples."""
        return jax.tree.map(operator.add, self, other)

    def all_reduce(self: T, axis_name: str) -> T:
        """The metric of all devices' examples, inside `shard_map` or `pmap` over `axis_name`."""
        return jax.lax.psum(self, axis_name)
