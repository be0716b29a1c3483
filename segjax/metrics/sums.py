"""Base classes of metrics: sums over examples, and lists of detections."""

import dataclasses
import operator
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")


class Sums:
    """A pytree of sums that are added over batches, devices and hosts; `compute` divides last.

    On the device integer sums hold up to 2³¹ − 1; larger sums belong on the host, as int64.
    """

    def merge(self: T, other: T) -> T:
        """The metric of both sets of examples."""
        return jax.tree.map(operator.add, self, other)

    def all_reduce(self: T, axis_name: str) -> T:
        """The metric of the examples of all devices, in `shard_map` or `pmap` over `axis_name`."""
        return jax.lax.psum(self, axis_name)


class Detections:
    """A pytree of arrays over detections, which are concatenated, and `objects`, which add up."""

    objects: Any

    def merge(self: T, other: T) -> T:
        """The metric of both sets of images; the first one wins between equal scores.

        Runs on the host in NumPy, as every merge has a new shape, which a device would compile for.
        """
        mine, others = jax.device_get((self, other))
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), mine, others)
        return dataclasses.replace(joined, objects=mine.objects + others.objects)

    def all_reduce(self: T, axis_name: str) -> T:
        """The metric of the images of all devices, in `shard_map` or `pmap` over `axis_name`."""
        gathered: Any = jax.tree.map(
            lambda a: jax.lax.all_gather(a, axis_name, tiled=True, to="invarying"), self
        )
        objects = jax.lax.psum(self.objects, axis_name)  # type: ignore[attr-defined]
        return dataclasses.replace(gathered, objects=objects)
