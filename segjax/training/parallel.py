"""One pure step, two ways to run it on many devices: `pmap`, and `jit` over a mesh.

In both the state is an ordinary pytree of global arrays (replicated, or sharded over "fsdp"), and a
batch is this host's NumPy arrays with the examples along the first axis.
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
    """How a run spreads its work: by `pmap`, or over a mesh.

    Attributes:
      mesh: as from `make_mesh`; None for pmap.
    """

    mesh: Mesh | None = None

    @property
    def axis_name(self) -> str | None:
        """What the steps are to be made with."""
        return AXIS if self.mesh is None else None

    def place(self, tree: Any) -> Any:
        """The pytree on the devices, as the steps take it."""
        if self.mesh is None:
            return replicate(tree)
        return jax.device_put(tree, fsdp_sharding(tree, self.mesh))

    def train_step(self, step: Callable, state: Any) -> Callable:
        """The training step on all devices; `state` is as `place` gave it."""
        if self.mesh is None:
            return pmap_step(step)
        shardings = jax.tree.map(lambda x: x.sharding, state)
        replicated = NamedSharding(self.mesh, PartitionSpec())
        return mesh_step(step, self.mesh, out_shardings=(shardings, replicated))

    def eval_step(self, step: Callable) -> Callable:
        """The evaluation step on all devices; each keeps the predictions of its examples."""
        if self.mesh is None:
            return pmap_step(step, donate=False, out_axes=(None, 0))
        predictions = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        metric = NamedSharding(self.mesh, PartitionSpec())
        return mesh_step(step, self.mesh, out_shardings=(metric, predictions), donate=False)

    def example(self, predictions: Any, place: int) -> Any:
        """The prediction for one example of this process's part of a batch, on the host.

        Args:
          predictions: of the evaluation step.
          place: the example's, in the batch as this process gave it.

        Returns:
          The prediction without its batch axis, NumPy arrays.
        """

        def pick(x):
            shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            axis = 1 if self.mesh is None else 0  # pmap's first axis is that of the devices
            device, row = divmod(place, shards[0].data.shape[axis])
            return np.asarray(shards[device].data).take(row, axis).reshape(x.shape[axis + 1 :])

        return jax.tree.map(pick, predictions)


def pmap_step(step: Callable, *, donate: bool = True, out_axes: Any = None) -> Callable:
    """Runs a step by `jax.pmap`, data parallel over all devices of all hosts.

    Args:
      step: `(state, batch) -> outputs`, made with `axis_name=parallel.AXIS`.
      donate: whether the state's buffers may be reused for the outputs.
      out_axes: as in `jax.pmap`: None for outputs that are the same on all devices (summed over
        them), 0 for those of each device's examples.

    Returns:
      `(state, batch) -> outputs`; the state as from `replicate`, the batch as NumPy arrays whose
      first axis divides by the number of this host's devices.
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
    """The pytree on every device of this host, as `pmap_step` takes it."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def mesh_step(
    step: Callable, mesh: Mesh, *, out_shardings: Any = None, donate: bool = True
) -> Callable:
    """Runs a step by `jax.jit`, the batch sharded over all axes of a mesh.

    Args:
      step: `(state, batch) -> outputs`, made without an `axis_name`.
      mesh: as from `make_mesh`.
      out_shardings: as in `jax.jit`; None for outputs that are all replicated.
      donate: whether the state's buffers may be reused for the outputs.

    Returns:
      `(state, batch) -> outputs`; the state sharded, the batch as NumPy arrays whose first axis,
      over all hosts, divides by the number of devices.
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
        with jax.set_mesh(mesh):  # so that what is for each example alone stays on its device
            return compiled(state, jax.tree.map(place, batch))

    return run


def make_mesh(*, fsdp: int = 1) -> Mesh:
    """A mesh of all devices with the axes "data" and "fsdp".

    Args:
      fsdp: over how many devices each parameter is sharded (fully sharded data parallelism).

    Returns:
      The mesh, `[devices / fsdp, fsdp]`.

    Raises:
      ValueError: where the number of devices does not divide by `fsdp`.
    """
    if fsdp < 1 or jax.device_count() % fsdp:
        raise ValueError(f"fsdp: a divisor of the {jax.device_count()} devices was due, got {fsdp}")
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((jax.device_count() // fsdp, fsdp), (AXIS, "fsdp"), axis_types)


def fsdp_sharding(tree: Any, mesh: Mesh) -> Any:
    """For each array the sharding of its longest axis that divides by the mesh's "fsdp" axis.

    Args:
      tree: a pytree of arrays or of their shapes.
      mesh: as from `make_mesh`.

    Returns:
      The pytree of `NamedSharding`s; arrays without such an axis, and all where "fsdp" is 1, are
      replicated.
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
    """NumPy copies of whole arrays, wherever their parts lie; all processes must call it."""

    def whole(x):
        if x.is_fully_addressable:
            return np.asarray(x)
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(whole, tree)


def _split_over_devices(x):
    devices = jax.local_device_count()
    if x.shape[0] % devices:
        raise ValueError(
            f"batch: a multiple of this host's {devices} devices was due, got {x.shape[0]} examples"
        )
    return np.asarray(x).reshape(devices, x.shape[0] // devices, *x.shape[1:])
