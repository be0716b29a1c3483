"""The log of a run: `metrics.jsonl`, and a progress bar (or lines, if not on a terminal)."""

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
from segjax.files import name_os_errors, write_file


class Logger:
    """Writes metrics to `metrics.jsonl` and shows the progress. Only process 0 writes.

    When a run resumes from step `start`, the rows that it is going to repeat are removed: those of
    later steps, and of the evaluation after step `start`.

    Args:
      folder: Folder of the run.
      start: Number of steps already taken.
      steps: Number of steps of the whole training.
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
            with contextlib.suppress(OSError):  # a full disk has been reported by `log`
                self._file.close()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Writes a row of metrics.

        Args:
          step: Number of steps taken.
          metrics: Metrics by name.
        """
        if self._file is None:
            return
        # JSON has no NaN.
        row = {k: float(v) if np.isfinite(v) else None for k, v in metrics.items()}
        with name_os_errors(self._file.name):
            self._file.write(json.dumps({"step": step, **row}) + "\n")
            self._file.flush()
        self._shown |= {k: v for k, v in metrics.items() if k in SHOWN}
        text = "  ".join(f"{SHOWN[k]} {v:.3g}" for k, v in self._shown.items())
        self._bars.update(self._bar, completed=step, text=text)
        if not self._console.is_terminal and (
            step == self._steps or time.monotonic() - self._printed >= progress.SECONDS
        ):
            self._printed = time.monotonic()
            left = progress.time_left(self._bars.tasks[0])
            self.say(f"step {step} of {self._steps}  {text}{left}")

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        progress.say(self._console, text)

    def track(self, elements: Sized, title: str) -> Iterator[Any]:
        """Iterates over elements while a second progress bar shows how many are done.

        Args:
          elements: Iterable with a length.
          title: Text in front of the bar.

        Returns:
          Iterator over the elements.
        """
        return progress.follow(self._bars, elements, title)


def say(text: str) -> None:
    """Prints a line without a `Logger`; only process 0 prints."""
    progress.say(_console(), text)


def track(elements: Sized, title: str) -> Iterator[Any]:
    """Iterates over elements with a progress bar, without a `Logger`.

    Args:
      elements: Iterable with a length.
      title: Text in front of the bar.

    Returns:
      Iterator over the elements.
    """
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
    """The rows of a log, without the incomplete last row of a process that was killed."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
