"""Checkpoints: the last state and the best ones, written in the background, whole or not at all."""

import math
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

    A checkpoint appears under its name only when it is whole, and one that it replaces goes only
    then: a process killed at any moment leaves one to go on from. All processes must call every
    method.

    Args:
      folder: made if missing; must be shared by all hosts.
      keep_best: how many of the best ones stay.
      keep_every: of the last ones, those of every multiple of so many steps stay; None keeps none.
    """

    def __init__(self, folder: pathlib.Path, *, keep_best: int = 1, keep_every: int | None = None):
        keep: dict[Kind, dict[str, Any]] = {
            "last": {"max_to_keep": 1, "keep_period": keep_every},
            "best": {
                "max_to_keep": keep_best,
                "best_fn": _score,
                "keep_checkpoints_without_metrics": False,
            },
        }
        self._managers = {kind: _manager(folder.absolute(), kind, **keep[kind]) for kind in KINDS}
        self._keep_best, self._scores = keep_best, {}
        for step in self._managers["best"].all_steps():
            if metrics := self._managers["best"].metrics(step):
                self._scores[step] = _score(metrics)

    def save(self, state: TrainState, position: dict[str, Any]) -> None:
        """Begins to save the last state, with what else is needed to go on from it.

        Args:
          state: of training.
          position: anything JSON can hold, e.g. of the data iterator.
        """
        self._save("last", state, position=ocp.args.JsonSave(position))

    def save_best(self, state: TrainState, score: float) -> None:
        """Begins to save a state, if it is one of the best ones that stay.

        Args:
          state: of training.
          score: of the state; more is better.
        """
        step, best = int(state.step), sorted(self._scores.values())[-self._keep_best :]
        least = best[0] if len(best) == self._keep_best else -math.inf
        if step not in self._scores and score > least:
            self._scores[step] = score
            self._save("best", state, metrics={"score": score})

    def _save(self, kind: Kind, state: TrainState, *, metrics: Any = None, **items: Any) -> None:
        # What a position tells of is whole before it: the best checkpoints that came earlier.
        for manager in self._managers.values():
            manager.wait_until_finished()
        step = int(state.step)
        if step not in self._managers[kind].all_steps():
            saved = ocp.args.StandardSave(jax.tree.map(_for_saving, vars(state)))
            items = ocp.args.Composite(state=saved, **items)
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
        """Waits until all that was begun is written; a second time there is nothing to do."""
        for manager in self._managers.values():
            manager.wait_until_finished()
            manager.close()
        self._managers = {}


def has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether there is a checkpoint to go on from; unlike `Checkpoints` it makes no folder."""
    return any(path.name.isdigit() for path in (folder / "last").glob("*"))


def load_variables(folder: pathlib.Path, which: Kind | int) -> tuple[dict, int]:
    """The variables to evaluate and predict with, from a run's checkpoints.

    Args:
      folder: of the checkpoints.
      which: "last", "best" (where there is no best one, the last), or a step.

    Returns:
      The variables as NumPy arrays, and their step.

    Raises:
      FileNotFoundError: where there is no such checkpoint; it says of which steps there are some.
    """
    there: set[int] = set()
    for kind in ("last",) if which == "last" else ("best", "last"):
        path = folder.absolute() / kind
        if path.is_dir():
            best_fn = _score if kind == "best" else None
            options = ocp.CheckpointManagerOptions(read_only=True, best_fn=best_fn)
            with ocp.CheckpointManager(path, options=options) as manager:
                steps = manager.all_steps()
                first = manager.best_step() or manager.latest_step()
                step = which if isinstance(which, int) else first
                if step in steps:
                    items = manager.restore(
                        step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
                    )
                    return TrainState(**items["state"]).variables, step
                there.update(steps)
    if there:
        steps = ", ".join(map(str, sorted(there)))
        raise FileNotFoundError(f"{folder}: no checkpoint of step {which} there, only of {steps}")
    raise FileNotFoundError(f"{folder}: no checkpoint there")


def _manager(folder: pathlib.Path, kind: Kind, **keep: Any) -> ocp.CheckpointManager:
    """Processes meet at barriers by name, which both managers' must not share in the same step."""
    barriers = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind)
    options = ocp.CheckpointManagerOptions(
        cleanup_tmp_directories=True, multiprocessing_options=barriers, **keep
    )
    return ocp.CheckpointManager(folder / kind, options=options)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _for_saving(x: jax.Array):
    """A copy on the host where this process holds all of the array: its buffer may be donated."""
    return np.array(x) if x.is_fully_addressable else x


def _for_restoring(x: jax.Array):
    if x.is_fully_addressable:
        return np.zeros(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
