"""Checkpoints: the last state and the best ones, written atomically and in the background."""

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

_CHECKSUMS = "checksums"  # the item of a checkpoint that holds the checksums of the others
Kind = Literal["last", "best"]
KINDS: tuple[Kind, ...] = ("last", "best")


class Checkpoints:
    """The checkpoints of a run: `FOLDER/last/STEP` and `FOLDER/best/STEP`.

    A checkpoint gets its name only when it is complete, and the one that it replaces is deleted
    only then, so a process that is killed at any moment leaves one to resume from. A checksum is
    saved with each array and verified when the array is read. All processes must call every method.

    Args:
      folder: Folder of the checkpoints, shared by all hosts. It is created if missing.
      keep_best: Number of best checkpoints to keep.
      keep_every: Also keep the checkpoint of every multiple of this number of steps; None keeps
        only the last.

    Raises:
      OSError: If a checkpoint cannot be read or saved, in every method. The message names it.
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
            with _one_line(folder / "best" / str(step), "read", "delete it to resume"):
                self._scores[step] = _score(self._managers["best"].metrics(step))

    def save(self, state: TrainState, position: dict[str, Any]) -> None:
        """Starts to save the last state, with everything else that is needed to resume from it.

        Args:
          state: State of the training.
          position: State of the data iterator and of the loop; anything that JSON can hold.
        """
        self._save("last", state, position)

    def save_best(self, state: TrainState, score: float) -> None:
        """Starts to save a state if it is among the `keep_best` best ones.

        Args:
          state: State of the training.
          score: Score of the state; higher is better.
        """
        step, best = int(state.step), sorted(self._scores.values())[-self._keep_best :]
        least = best[0] if len(best) == self._keep_best else -math.inf
        if step not in self._scores and score > least:
            self._scores[step] = score
            self._save("best", state, metrics={"score": score})

    def _save(
        self, kind: Kind, state: TrainState, position: Any = None, *, metrics: Any = None
    ) -> None:
        self._wait()  # a position names the best score, whose checkpoint must be complete first
        step = int(state.step)
        if step in self._managers[kind].all_steps():
            return
        arrays = jax.tree.map(_for_saving, vars(state))
        items = {
            "state": ocp.args.StandardSave(arrays),
            _CHECKSUMS: ocp.args.JsonSave(checksums(arrays) | {"position": _text_sum(position)}),
        }
        if position is not None:
            items["position"] = ocp.args.JsonSave(position)
        self._saving.enter_context(_finishing_loops())
        with _one_line(self._folder / kind / str(step), "saved"):
            self._managers[kind].save(
                step, args=ocp.args.Composite(**items), metrics=metrics, force=True
            )

    def _wait(self) -> None:
        """Waits until everything is written."""
        with self._saving:
            for kind, manager in self._managers.items():
                with _one_line(self._folder / kind, "saved"):
                    manager.wait_until_finished()

    def latest_step(self) -> int | None:
        """The step of the last checkpoint; None if there is none."""
        return self._managers["last"].latest_step()

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads the last checkpoint.

        Args:
          state: State of the same model and optimizer at any step; each array is placed on the
            devices of its counterpart.

        Returns:
          The saved state and position.
        """
        step = self.latest_step()
        path = self._folder / "last" / str(step)
        before = [other for other in self._managers["last"].all_steps() if other != step]
        start = f"step {max(before)}" if before else "the start"
        template = jax.tree.map(_for_restoring, vars(state))
        with _one_line(path, "read", f"delete it to resume from {start}"):
            items = _read(
                self._managers["last"],
                path,
                state=ocp.args.StandardRestore(template),
                position=ocp.args.JsonRestore(),
            )
            _verify(items["state"], items)
            if _CHECKSUMS in items and items[_CHECKSUMS].get("position") != _text_sum(
                items["position"]
            ):
                raise ValueError("position: expected what was saved, got another checksum")
        place = lambda value, like: jax.device_put(value, like.sharding)
        return TrainState(**jax.tree.map(place, items["state"], vars(state))), items["position"]

    def close(self) -> None:
        """Waits until everything is written. Calling it again does nothing."""
        managers, self._managers = self._managers, {}
        with self._saving:
            for kind, manager in managers.items():
                with _one_line(self._folder / kind, "saved"):
                    manager.wait_until_finished()
                    manager.close()


def has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether there is a checkpoint to resume from. Unlike `Checkpoints`, it creates no folder."""
    return bool(_steps(folder, "last"))


def load_variables(folder: pathlib.Path, which: Kind | int) -> tuple[dict, int]:
    """Loads the variables for evaluation and prediction from the checkpoints of a run.

    Args:
      folder: Folder of the checkpoints.
      which: "last", "best" (the last if there is no best one), or a step.

    Returns:
      The variables as NumPy arrays, and their step.

    Raises:
      FileNotFoundError: If there is no such checkpoint. The message lists the steps there are.
      OSError: If it cannot be read or is damaged. The message names the other checkpoints.
    """
    found: set[int] = set()
    kinds: tuple[Kind, ...] = ("last",) if which == "last" else ("best", "last")
    for kind in kinds:
        path = folder / kind
        if not _steps(folder, kind):
            continue
        other: Kind = "last" if kind == "best" else "best"
        steps = ", ".join(f"step {step}" for step in _steps(folder, other))
        hint = f'the checkpoint "{other}" ({steps}) may be intact' if steps else ""
        best_fn = _score if kind == "best" else None
        options = ocp.CheckpointManagerOptions(read_only=True, best_fn=best_fn)
        with (
            _one_line(path, "opened", hint),
            ocp.CheckpointManager(path.absolute(), options=options) as manager,
        ):
            first = manager.best_step() or manager.latest_step()
            step = which if isinstance(which, int) else first
            if step in manager.all_steps():
                with _one_line(path / str(step), "read", hint):
                    return _variables(manager, path / str(step)), step
            found.update(manager.all_steps())
    if found:
        steps = ", ".join(map(str, sorted(found)))
        raise FileNotFoundError(
            f"{folder}: expected a checkpoint of step {which}, got steps {steps}"
        )
    raise FileNotFoundError(f"{folder}: no checkpoint there")


def _variables(manager: ocp.CheckpointManager, path: pathlib.Path) -> dict:
    items = _read(manager, path, state=ocp.args.StandardRestore())
    state = items["state"]
    used = ("params", "model_state") if state["average"] is None else ("average",)
    _verify({name: state[name] for name in used}, items)
    return TrainState(**state).variables


def _read(manager: ocp.CheckpointManager, path: pathlib.Path, **items: Any) -> dict[str, Any]:
    """The items of a checkpoint, and their checksums if it has any."""
    if (path / _CHECKSUMS).exists():
        items[_CHECKSUMS] = ocp.args.JsonRestore()
    with _finishing_loops():
        return dict(manager.restore(int(path.name), args=ocp.args.Composite(**items)))


class _FinishingLoop(asyncio.SelectorEventLoop):
    """Lets all reads and writes finish before it closes.

    Otherwise, if one array fails, TensorStore prints a traceback for each of the others.
    """

    def close(self) -> None:
        if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


@contextlib.contextmanager
def _finishing_loops() -> Iterator[None]:
    """Makes Orbax, which creates its own event loops, use `_FinishingLoop`."""
    before = asyncio.new_event_loop
    vars(asyncio)["new_event_loop"] = _FinishingLoop
    try:
        yield
    finally:
        vars(asyncio)["new_event_loop"] = before


def _verify(arrays: Any, items: dict[str, Any]) -> None:
    """Compares arrays with their checksums, if there are any."""
    saved = items.get(_CHECKSUMS)
    for name, found in checksums(arrays).items() if saved is not None else ():
        if not isinstance(saved, dict) or saved.get(name) != found:
            raise ValueError(f"{name}: expected the array that was saved, got another checksum")


def _text_sum(position: Any) -> int:
    return zlib.crc32(json.dumps(position).encode())


@contextlib.contextmanager
def _one_line(path: pathlib.Path, done: str, hint: str = "") -> Iterator[None]:
    """Turns any exception, mostly of Orbax and TensorStore, into an OSError of one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and str(error).startswith(str(path)):
            raise  # already in this form
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        reason = textwrap.shorten(reason.splitlines()[0], 200, placeholder=" …")
        line = f"{path}: cannot be {done} ({reason})"
        raise OSError(f"{line}; {hint}" if hint else line) from error


def _steps(folder: pathlib.Path, kind: Kind) -> list[int]:
    """The steps for which there is a folder, complete or not."""
    return sorted(int(path.name) for path in (folder / kind).glob("*") if path.name.isdecimal())


def _manager(folder: pathlib.Path, kind: Kind, **keep: Any) -> ocp.CheckpointManager:
    # The barriers of both managers must have different names within a step.
    barriers = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind)
    options = ocp.CheckpointManagerOptions(
        cleanup_tmp_directories=True, multiprocessing_options=barriers, **keep
    )
    return ocp.CheckpointManager(folder / kind, options=options)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _for_saving(x: jax.Array) -> np.ndarray | jax.Array:
    # The buffer may be donated while it is written, so what this process holds alone is copied.
    return np.array(x) if x.is_fully_addressable else x


def _for_restoring(x: jax.Array) -> np.ndarray | jax.ShapeDtypeStruct:
    if x.is_fully_addressable:
        return np.zeros(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
