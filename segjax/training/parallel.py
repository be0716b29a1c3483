"""Runs a training step on many devices: by `pmap`, or by `jit` over a device mesh.

In both cases the state is a pytree of global arrays (replicated, or sharded over "fsdp"), and a
batch holds the examples of this host as NumPy arrays with the batch axis first.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a run is distributed over devices: by `pmap`, or by `jit` over a mesh.

    Attributes:
      mesh: Mesh from `make_mesh`; None for `pmap`.
    """

    mesh: Mesh | None = None

    @property
    def axis_name(self) -> str | None:
        """The `axis_name` for `make_train_step` and `make_eval_step`."""
        return AXIS if self.mesh is None else None

    def place(self, tree: Any) -> Any:
        """Places a pytree, such as the state or the variables, on the devices."""
        if self.mesh is None:
            return replicate(tree)
        return jax.device_put(tree, fsdp_sharding(tree, self.mesh))

    def train_step(self, step: Callable, state: Any) -> Callable:
        """The training step on all devices, for states that are placed like `state`."""
        if self.mesh is None:
            return pmap_step(step)
        shardings = jax.tree.map(lambda x: x.sharding, state)
        replicated = NamedSharding(self.mesh, PartitionSpec())
        return mesh_step(step, self.mesh, out_shardings=(shardings, replicated))

    def eval_step(self, step: Callable) -> Callable:
        """The evaluation step on all devices; each device keeps the predictions it made."""
        if self.mesh is None:
            return pmap_step(step, donate=False, out_axes=(None, 0))
        predictions = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        metric = NamedSharding(self.mesh, PartitionSpec())
        return mesh_step(step, self.mesh, out_shardings=(metric, predictions), donate=False)

    def example(self, predictions: Any, place: int) -> Any:
        """Copies the prediction for one example to the host.

        Args:
          predictions: Predictions of the evaluation step.
          place: Index of the example in the batch of this process.

        Returns:
          The prediction as NumPy arrays without batch axis.
        """

        def pick(x):
            shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            axis = 1 if self.mesh is None else 0  # the first axis of pmap's outputs is the device
            device, row = divmod(place, shards[0].data.shape[axis])
            return np.asarray(shards[device].data).take(row, axis).reshape(x.shape[axis + 1 :])

        return jax.tree.map(pick, predictions)


def pmap_step(step: Callable, *, donate: bool = True, out_axes: Any = None) -> Callable:
    """Runs a step by `jax.pmap`: data parallelism over all devices of all hosts.

    Args:
      step: Function `(state, batch) -> outputs`, made with `axis_name=parallel.AXIS`.
      donate: Whether the buffers of the state may be reused for the outputs.
      out_axes: Output axes as in `jax.pmap`: None for outputs that are the same on all devices, 0
        for outputs that each device computes for its own examples.

    Returns:
      Function `(state, batch) -> outputs`. The state comes from `replicate`. The batch consists of
      NumPy arrays, whose first axis must be a multiple of the number of devices of this host.
    """
    mapped = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=out_axes,
        donate_argnums=(0,) if donate else (),
    )

    def run(state, batch):
        return mapped(state, jax.tree.map(_split_over_devices, batch))

    return run


def replicate(tree: Any) -> Any:
    """Copies a pytree to every device of this host, for `pmap_step`."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def mesh_step(
    step: Callable, mesh: Mesh, *, out_shardings: Any = None, donate: bool = True
) -> Callable:
    """Runs a step by `jax.jit`, with the batch sharded over all axes of a mesh.

    Args:
      step: Function `(state, batch) -> outputs`, made without an `axis_name`.
      mesh: Mesh from `make_mesh`.
      out_shardings: Output shardings as in `jax.jit`; None replicates all outputs.
      donate: Whether the buffers of the state may be reused for the outputs.

    Returns:
      Function `(state, batch) -> outputs`. The state is sharded. The batch consists of NumPy
      arrays, whose first axis over all hosts must be a multiple of the number of devices.
    """
    batch_sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    if out_shardings is None:
        out_shardings = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(
        step,
        out_shardings=out_shardings,
        donate_argnums=(0,) if donate else (),
    )

    def run(state, batch):
        place = lambda x: jax.make_array_from_process_local_data(batch_sharding, np.asarray(x))
        with jax.set_mesh(mesh):  # `mapping.map_shards` keeps each example on its device
            return compiled(state, jax.tree.map(place, batch))

    return run


def make_mesh(*, fsdp: int = 1) -> Mesh:
    """Creates a mesh of all devices with the axes "data" and "fsdp".

    Args:
      fsdp: Number of devices that each parameter is sharded over (fully sharded data parallelism).

    Returns:
      Mesh of shape `[devices / fsdp, fsdp]`.

    Raises:
      ValueError: If the number of devices is not a multiple of `fsdp`.
    """
    if fsdp < 1 or jax.device_count() % fsdp:
        raise ValueError(
            f"fsdp: expected a divisor of the {jax.device_count()} devices, got {fsdp}"
        )
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((jax.device_count() // fsdp, fsdp), (AXIS, "fsdp"), axis_types)


def fsdp_sharding(tree: Any, mesh: Mesh) -> Any:
    """Shards each array along its longest axis whose size is a multiple of the "fsdp" axis.

    Args:
      tree: Pytree of arrays or `jax.ShapeDtypeStruct`s of any shape.
      mesh: Mesh from `make_mesh`.

    Returns:
      Pytree of `NamedSharding`s. Arrays without such an axis are replicated; so are all arrays if
      the size of "fsdp" is 1.
    """
    devices = mesh.shape["fsdp"]

    def sharding(x):
        axes = [a for a in range(x.ndim) if devices > 1 and x.shape[a] % devices == 0]
        spec: list[str | None] = [None] * x.ndim
        if axes:
            spec[max(axes, key=lambda a: x.shape[a])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, tree)


def fetch(tree: Any) -> Any:
    """Copies whole arrays to the host, however they are sharded. All processes must call it."""

    def whole(x):
        if x.is_fully_addressable:
            return np.asarray(x)
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(whole, tree)


def _split_over_devices(x):
    devices = jax.local_device_count()
    if x.shape[0] % devices:
        raise ValueError(
            f"batch: expected a multiple of this host's {devices} devices, got {x.shape[0]} "
            "examples"
        )
    return np.asarray(x).reshape(devices, x.shape[0] // devices, *x.shape[1:])
