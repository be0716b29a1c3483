"""What metrics have in common: those that are sums over examples, or lists of detections."""

import dataclasses
import operator
from typing import Any, TypeVar

import jax
import numpy as np

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


class Detections:
    """A pytree of what is known of each detection, and of `objects`, counts that add up."""

    objects: Any

    def merge(self: T, other: T) -> T:
        """The metric of both sets of images, in this order, which decides between equal scores.

        It is on the host, in NumPy: every merge has a new shape, for which a device compiles anew.
        """
        mine, others = jax.device_get((self, other))
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), mine, others)
        return dataclasses.replace(joined, objects=mine.objects + others.objects)

    def all_reduce(self: T, axis_name: str) -> T:
        """The metric of all devices' images, inside `shard_map` or `pmap` over `axis_name`."""
        gathered: Any = jax.tree.map(
            lambda a: jax.lax.all_gather(a, axis_name, tiled=True, to="invarying"), self
        )
        objects = jax.lax.psum(self.objects, axis_name)  # type: ignore[attr-defined]
        return dataclasses.replace(gathered, objects=objects)
