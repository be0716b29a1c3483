"""Checkpoints: the last state and the best, written in the background, whole or not at all."""

import pathlib
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from segjax.training.state import TrainState

Which = Literal["last", "best"]
WHICH: tuple[Which, ...] = ("last", "best")


class Checkpoints:
    """The checkpoints of one run: `FOLDER/last/STEP` and `FOLDER/best/STEP`.

    A checkpoint appears under its name only when it is whole, and the one before it goes only then:
    a process killed at any moment leaves one to go on from. All processes must call every method.

    Args:
      folder: made if missing; must be shared by all hosts.
      keep_every: of the last ones, those of every multiple of so many steps stay; None keeps none.
    """

    def __init__(self, folder: pathlib.Path, *, keep_every: int | None = None):
        keep = {"last": keep_every, "best": None}
        self._managers = {which: _manager(folder.absolute(), which, keep[which]) for which in WHICH}

    def save(self, which: Which, state: TrainState, position: dict[str, Any]) -> None:
        """Begins to save a state, with what else is needed to go on from it.

        Args:
          which: "last" or "best".
          state: of training.
          position: anything JSON can hold, e.g. of the data iterator.
        """
        step = int(state.step)
        if step in self._managers[which].all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.map(_for_saving, vars(state))),
            position=ocp.args.JsonSave(position),
        )
        self._managers[which].save(step, args=items, force=True)

    def latest_step(self) -> int | None:
        """The step of the last checkpoint; None where there is none."""
        return self._managers["last"].latest_step()

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The last checkpoint, each array placed as its counterpart in `state` is.

        Args:
          state: of the run's model and optimizer, at any step.

        Returns:
          The saved state and position.
        """
        template = jax.tree.map(_for_restoring, vars(state))
        items = self._managers["last"].restore(
            self.latest_step(),
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(template), position=ocp.args.JsonRestore()
            ),
        )
        place = lambda value, like: jax.device_put(value, like.sharding)
        return TrainState(**jax.tree.map(place, items["state"], vars(state))), items["position"]

    def close(self) -> None:
        """Waits until all that was begun is written; a second time there is nothing to do."""
        for manager in self._managers.values():
            manager.wait_until_finished()
            manager.close()
        self._managers = {}


def has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether there is a checkpoint to go on from; unlike `Checkpoints` it makes no folder."""
    return any(path.name.isdigit() for path in (folder / "last").glob("*"))


def load_variables(folder: pathlib.Path, which: Which) -> tuple[dict, int]:
    """The variables to evaluate and predict with, from a run's checkpoints.

    Args:
      folder: of the checkpoints.
      which: "last" or "best"; where there is no best one, the last.

    Returns:
      The variables as NumPy arrays, and their step.

    Raises:
      FileNotFoundError: where there is no checkpoint.
    """
    for name in (which, "last"):
        path = folder.absolute() / name
        if path.is_dir():
            with ocp.CheckpointManager(
                path, options=ocp.CheckpointManagerOptions(read_only=True)
            ) as m:
                step = m.latest_step()
                if step is not None:
                    items = m.restore(
                        step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
                    )
                    return TrainState(**items["state"]).variables, step
    raise FileNotFoundError(f"{folder}: no checkpoint there")


def _manager(folder: pathlib.Path, which: Which, keep_every: int | None) -> ocp.CheckpointManager:
    """Processes meet at barriers by name, which both managers' must not share in the same step."""
    barriers = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=which)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1,
        keep_period=keep_every,
        cleanup_tmp_directories=True,
        multiprocessing_options=barriers,
    )
    return ocp.CheckpointManager(folder / which, options=options)


def _for_saving(x: jax.Array):
    """A copy on the host where this process holds all of the array: its buffer may be donated."""
    return np.array(x) if x.is_fully_addressable else x


def _for_restoring(x: jax.Array):
    if x.is_fully_addressable:
        return np.zeros(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
