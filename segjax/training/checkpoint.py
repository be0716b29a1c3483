"""Checkpoints: the last state and the best ones, written in the background, whole or not at all."""

import pathlib
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from segjax.training.state import TrainState

Kind = Literal["last", "best"]
KINDS: tuple[Kind, ...] = ("last", "best")


class Checkpoints:
    """The checkpoints of one run: `FOLDER/last/STEP` and `FOLDER/best/STEP`.

    A checkpoint appears under its name only when it is whole, and the one before it goes only then:
    a process killed at any moment leaves one to go on from. All processes must call every method.

    Args:
      folder: made if missing; must be shared by all hosts.
      keep_best: how many of the best ones stay.
      keep_every: of the last ones, those of every multiple of so many steps stay; None keeps none.
    """

    def __init__(self, folder: pathlib.Path, *, keep_best: int = 1, keep_every: int | None = None):
        keep: dict[Kind, dict[str, Any]] = {
            "last": {"max_to_keep": 1, "keep_period": keep_every},
            "best": {"max_to_keep": keep_best, "best_fn": _score},
        }
        self._managers = {kind: _manager(folder.absolute(), kind, **keep[kind]) for kind in KINDS}

    def save(
        self,
        kind: Kind,
        state: TrainState,
        position: dict[str, Any],
        *,
        score: float | None = None,
    ) -> None:
        """Begins to save a state, with what else is needed to go on from it.

        Args:
          kind: "last" or "best".
          state: of training.
          position: anything JSON can hold, e.g. of the data iterator.
          score: of a best one, by which those that stay are chosen.
        """
        step = int(state.step)
        if step in self._managers[kind].all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.map(_for_saving, vars(state))),
            position=ocp.args.JsonSave(position),
        )
        metrics = None if score is None else {"score": score}
        self._managers[kind].save(step, args=items, metrics=metrics, force=True)

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
        """Waits until all that was begun is written."""
        for manager in self._managers.values():
            manager.wait_until_finished()
            manager.close()


def has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether there is a checkpoint to go on from; unlike `Checkpoints` it makes no folder."""
    return any(path.name.isdigit() for path in (folder / "last").glob("*"))


def load_variables(folder: pathlib.Path, which: Kind | int) -> tuple[dict, int]:
    """The variables to evaluate and predict with, from a run's checkpoints.

    Args:
      folder: of the checkpoints.
      which: "last", or "best" (where there is no best one, the last), or the number of a step.

    Returns:
      The variables as NumPy arrays, and their step.

    Raises:
      FileNotFoundError: where there is no such checkpoint; it names those there are.
    """
    kinds: tuple[Kind, ...] = KINDS if isinstance(which, int) else (which, "last")
    there: set[int] = set()
    for kind in kinds:
        path = folder.absolute() / kind
        if path.is_dir():
            options = ocp.CheckpointManagerOptions(
                read_only=True, best_fn=_score if kind == "best" else None
            )
            with ocp.CheckpointManager(path, options=options) as m:
                steps = m.all_steps()
                there |= set(steps)
                step = m.best_step()
                if isinstance(which, int):
                    step = which if which in steps else None
                if step is not None:
                    items = m.restore(
                        step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
                    )
                    return TrainState(**items["state"]).variables, step
    if there:
        steps = ", ".join(map(str, sorted(there)))
        raise FileNotFoundError(f"{folder}: no checkpoint of step {which} there, only of {steps}")
    raise FileNotFoundError(f"{folder}: no checkpoint there")


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _manager(folder: pathlib.Path, kind: Kind, **keep: Any) -> ocp.CheckpointManager:
    """Processes meet at barriers by name, which both managers' must not share in the same step."""
    barriers = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind)
    options = ocp.CheckpointManagerOptions(
        cleanup_tmp_directories=True, multiprocessing_options=barriers, **keep
    )
    return ocp.CheckpointManager(folder / kind, options=options)


def _for_saving(x: jax.Array):
    """A copy on the host where this process holds all of the array: its buffer may be donated."""
    return np.array(x) if x.is_fully_addressable else x


def _for_restoring(x: jax.Array):
    if x.is_fully_addressable:
        return np.zeros(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
