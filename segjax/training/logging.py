"""The log of a run: `metrics.jsonl`, and a progress bar on a terminal or lines elsewhere."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator, Sized
from typing import Any, TextIO

import jax
import numpy as np
from rich.console import Console

from segjax import progress
from segjax.files import naming, write_file


class Logger:
    """Writes figures by step; only process 0 writes at all.

    Rows of steps after `start`, and of the evaluation after it, are dropped first: a run that
    resumes from step `start` makes them again.

    Args:
      folder: of the run; gets `metrics.jsonl`.
      start: the step that the run goes on from.
      steps: of the whole training.
    """

    def __init__(self, folder: pathlib.Path, *, start: int, steps: int):
        self._console = _console()
        self._bars = progress.bars(self._console)
        self._bar = self._bars.add_task("training", total=steps, completed=start, text="")
        self._shown: dict[str, float] = {}
        self._steps, self._printed = steps, -float("inf")
        self._file: TextIO | None = None
        if jax.process_index() == 0:
            path = folder / "metrics.jsonl"
            kept = [line for line in _rows(path) if _is_before(json.loads(line), start)]
            write_file(path, "".join(kept))
            self._file = path.open("a")

    def __enter__(self) -> "Logger":
        self._bars.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bars.stop()
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a full disk, which has been said
                self._file.close()

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Writes a row of figures.

        Args:
          step: they belong to.
          figures: by name.
        """
        if self._file is None:
            return
        # JSON has no NaN.
        row = {k: float(v) if np.isfinite(v) else None for k, v in figures.items()}
        with naming(self._file.name):
            self._file.write(json.dumps({"step": step, **row}) + "\n")
            self._file.flush()
        self._shown |= {k: v for k, v in figures.items() if k in SHOWN}
        text = "  ".join(f"{SHOWN[k]} {v:.3g}" for k, v in self._shown.items())
        self._bars.update(self._bar, completed=step, text=text)
        if not self._console.is_terminal and (
            step == self._steps or time.monotonic() - self._printed >= progress.SECONDS
        ):
            self._printed = time.monotonic()
            left = progress.time_left(self._bars.tasks[0])
            self.say(f"step {step} of {self._steps}  {text}{left}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        progress.say(self._console, text)

    def track(self, elements: Sized, title: str) -> Iterator[Any]:
        """The elements of a sequence, with a bar of their own; in a log, a line now and then.

        Args:
          elements: an iterable with a length.
          title: what is done with them.

        Returns:
          An iterator over its elements.
        """
        return progress.follow(self._bars, elements, title)


def say(text: str) -> None:
    """Prints a line before there is a log; only process 0 does."""
    progress.say(_console(), text)


def track(elements: Sized, title: str) -> Iterator[Any]:
    """The same as `Logger.track` before there is a log."""
    return progress.track(elements, title, console=_console())


def _console() -> Console:
    return Console(quiet=jax.process_index() != 0)


def _is_before(row: dict[str, Any], start: int) -> bool:
    evaluation = any(name.startswith("val/") for name in row)
    return row["step"] < start or (row["step"] == start and not evaluation)


SHOWN = {
    "examples_per_second": "images/s",
    "loss": "loss",
    "val/mean_iou": "mIoU",
    "val/ap": "AP",
    "val/pq": "PQ",
}


def _rows(path: pathlib.Path) -> list[str]:
    """The whole rows of a log; a process killed while writing leaves half a row at the end."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
