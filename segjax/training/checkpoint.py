"""Checkpoints: the last state and the best ones, written in the background, whole or not at all."""

import asyncio
import contextlib
import json
import math
import pathlib
import textwrap
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from segjax.training.checksums import checksums
from segjax.training.state import TrainState

_SUMS = "checksums"  # the item of a checkpoint with those of all that it holds
Kind = Literal["last", "best"]
KINDS: tuple[Kind, ...] = ("last", "best")


class Checkpoints:
    """The checkpoints of one run: `FOLDER/last/STEP` and `FOLDER/best/STEP`.

    A checkpoint appears under its name only when it is whole, and one that it replaces goes only
    then: a process killed at any moment leaves one to go on from. With each array its checksum is
    saved, which is verified where it is read. All processes must call every method.

    Args:
      folder: made if missing; must be shared by all hosts.
      keep_best: how many of the best ones stay.
      keep_every: of the last ones, those of every multiple of so many steps stay; None keeps none.

    Raises:
      OSError: one cannot be read or saved; every method names it.
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
        self._folder, self._keep_best, self._scores = folder, keep_best, {}
        self._managers = {}
        self._saving = contextlib.ExitStack()  # from the start of saving until all is written
        for kind in KINDS:
            with _one_line(folder / kind, "opened"):
                self._managers[kind] = _manager(folder.absolute(), kind, **keep[kind])
        for step in self._managers["best"].all_steps():
            with _one_line(folder / "best" / str(step), "read", "delete it to go on"):
                self._scores[step] = _score(self._managers["best"].metrics(step))

    def save(self, state: TrainState, position: dict[str, Any]) -> None:
        """Begins to save the last state, with what else is needed to go on from it.

        Args:
          state: of training.
          position: anything JSON can hold, e.g. of the data iterator.
        """
        self._save("last", state, position)

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

    def _save(
        self, kind: Kind, state: TrainState, position: Any = None, *, metrics: Any = None
    ) -> None:
        # What a position tells of is whole before it: the best checkpoints that came earlier.
        self._wait()
        step = int(state.step)
        if step in self._managers[kind].all_steps():
            return
        arrays = jax.tree.map(_for_saving, vars(state))
        items = {
            "state": ocp.args.StandardSave(arrays),
            _SUMS: ocp.args.JsonSave(checksums(arrays) | {"position": _text_sum(position)}),
        }
        if position is not None:
            items["position"] = ocp.args.JsonSave(position)
        self._saving.enter_context(_finishing_loops())
        with _one_line(self._folder / kind / str(step), "saved"):
            self._managers[kind].save(
                step, args=ocp.args.Composite(**items), metrics=metrics, force=True
            )

    def _wait(self) -> None:
        """Until all that was begun is written."""
        with self._saving:
            for kind, manager in self._managers.items():
                with _one_line(self._folder / kind, "saved"):
                    manager.wait_until_finished()

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
        step = self.latest_step()
        path = self._folder / "last" / str(step)
        before = [other for other in self._managers["last"].all_steps() if other != step]
        start = f"step {max(before)}" if before else "the start"
        template = jax.tree.map(_for_restoring, vars(state))
        with _one_line(path, "read", f"delete it to go on from {start}"):
            items = _read(
                self._managers["last"],
                path,
                state=ocp.args.StandardRestore(template),
                position=ocp.args.JsonRestore(),
            )
            _verify(items["state"], items)
            if _SUMS in items and items[_SUMS].get("position") != _text_sum(items["position"]):
                raise ValueError("position: not what was saved")
        place = lambda value, like: jax.device_put(value, like.sharding)
        return TrainState(**jax.tree.map(place, items["state"], vars(state))), items["position"]

    def close(self) -> None:
        """Waits until all that was begun is written; a second time there is nothing to do."""
        managers, self._managers = self._managers, {}
        with self._saving:
            for kind, manager in managers.items():
                with _one_line(self._folder / kind, "saved"):
                    manager.wait_until_finished()
                    manager.close()


def has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether there is a checkpoint to go on from; unlike `Checkpoints` it makes no folder."""
    return bool(_steps(folder, "last"))


def load_variables(folder: pathlib.Path, which: Kind | int) -> tuple[dict, int]:
    """The variables to evaluate and predict with, from a run's checkpoints.

    Args:
      folder: of the checkpoints.
      which: "last", "best" (where there is no best one, the last), or a step.

    Returns:
      The variables as NumPy arrays, and their step.

    Raises:
      FileNotFoundError: where there is no such checkpoint; it says of which steps there are some.
      OSError: where it cannot be read, or an array is not what was saved; it says of which others
        there are.
    """
    there: set[int] = set()
    kinds: tuple[Kind, ...] = ("last",) if which == "last" else ("best", "last")
    for kind in kinds:
        path = folder / kind
        if not _steps(folder, kind):
            continue
        other: Kind = "last" if kind == "best" else "best"
        way_out = ", ".join(f"step {step}" for step in _steps(folder, other))
        way_out = f'the checkpoint "{other}" ({way_out}) may be whole' if way_out else ""
        best_fn = _score if kind == "best" else None
        options = ocp.CheckpointManagerOptions(read_only=True, best_fn=best_fn)
        with (
            _one_line(path, "opened", way_out),
            ocp.CheckpointManager(path.absolute(), options=options) as manager,
        ):
            steps = manager.all_steps()
            first = manager.best_step() or manager.latest_step()
            step = which if isinstance(which, int) else first
            if step in steps:
                with _one_line(path / str(step), "read", way_out):
                    return _variables(manager, path / str(step)), step
            there.update(steps)
    if there:
        steps = ", ".join(map(str, sorted(there)))
        raise FileNotFoundError(f"{folder}: no checkpoint of step {which} there, only of {steps}")
    raise FileNotFoundError(f"{folder}: no checkpoint there")


def _variables(manager: ocp.CheckpointManager, path: pathlib.Path) -> dict:
    items = _read(manager, path, state=ocp.args.StandardRestore())
    state = items["state"]
    used = ("params", "model_state") if state["average"] is None else ("average",)
    _verify({name: state[name] for name in used}, items)
    return TrainState(**state).variables


def _read(manager: ocp.CheckpointManager, path: pathlib.Path, **items: Any) -> dict[str, Any]:
    """The items of a checkpoint, with the checksums where it has some."""
    if (path / _SUMS).exists():
        items[_SUMS] = ocp.args.JsonRestore()
    with _finishing_loops():
        return dict(manager.restore(int(path.name), args=ocp.args.Composite(**items)))


class _FinishingLoop(asyncio.SelectorEventLoop):
    """Ends all reading and writing before it closes: where one array fails, TensorStore would print
    a traceback for each of the others that it reads or writes meanwhile."""

    def close(self) -> None:
        if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


@contextlib.contextmanager
def _finishing_loops() -> Iterator[None]:
    """Orbax makes its event loops itself."""
    before = asyncio.new_event_loop
    vars(asyncio)["new_event_loop"] = _FinishingLoop
    try:
        yield
    finally:
        vars(asyncio)["new_event_loop"] = before


def _verify(arrays: Any, items: dict[str, Any]) -> None:
    """Holds what is read to the checksums, if there are any."""
    saved = items.get(_SUMS)
    for name, found in checksums(arrays).items() if saved is not None else ():
        if not isinstance(saved, dict) or saved.get(name) != found:
            raise ValueError(f"{name}: not what was saved")


def _text_sum(position: Any) -> int:
    return zlib.crc32(json.dumps(position).encode())


@contextlib.contextmanager
def _one_line(path: pathlib.Path, done: str, way_out: str = "") -> Iterator[None]:
    """Turns whatever is raised, mostly by Orbax and TensorStore, into a line about the path."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and str(error).startswith(str(path)):
            raise  # is one already
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        reason = textwrap.shorten(reason.splitlines()[0], 200, placeholder=" …")
        line = f"{path}: cannot be {done} ({reason})"
        raise OSError(f"{line}; {way_out}" if way_out else line) from error


def _steps(folder: pathlib.Path, kind: Kind) -> list[int]:
    """Of which there are checkpoints, whole or not."""
    return sorted(int(path.name) for path in (folder / kind).glob("*") if path.name.isdecimal())


def _manager(folder: pathlib.Path, kind: Kind, **keep: Any) -> ocp.CheckpointManager:
    """Processes meet at barriers by name, which both managers' must not share in the same step."""
    barriers = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind)
    options = ocp.CheckpointManagerOptions(
        cleanup_tmp_directories=True, multiprocessing_options=barriers, **keep
    )
    return ocp.CheckpointManager(folder / kind, options=options)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _for_saving(x: jax.Array) -> np.ndarray | jax.Array:
    """A copy on the host where this process holds all of the array: its buffer may be donated."""
    return np.array(x) if x.is_fully_addressable else x


def _for_restoring(x: jax.Array) -> np.ndarray | jax.ShapeDtypeStruct:
    if x.is_fully_addressable:
        return np.zeros(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
