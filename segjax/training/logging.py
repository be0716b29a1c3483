"""The log of a run: `metrics.jsonl` always, TensorBoard beside it, a progress bar on a terminal."""

import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any, TextIO

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter


class Logger:
    """Writes figures by step; only process 0 writes at all.

    Rows of steps after `start`, and of the evaluation after it, are dropped first: a run that
    resumes from step `start` makes them again.

    Args:
      folder: of the run; gets `metrics.jsonl` and `tensorboard/`.
      start: the step that the run goes on from.
      steps: of the whole training.
    """

    def __init__(self, folder: pathlib.Path, *, start: int, steps: int):
        self._console = Console(quiet=jax.process_index() != 0)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal or jax.process_index() != 0,
        )
        self._bar = self._progress.add_task("training", total=steps, completed=start, figures="")
        self._shown: dict[str, float] = {}
        self._steps, self._printed = steps, -float("inf")
        self._file: TextIO | None = None
        self._board: SummaryWriter | None = None
        if jax.process_index() == 0:
            path = folder / "metrics.jsonl"
            kept = [line for line in _rows(path) if _is_before(json.loads(line), start)]
            path.write_text("".join(kept))
            self._file = path.open("a")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def __enter__(self) -> "Logger":
        self._progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self._progress.stop()
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Writes a row of figures.

        Args:
          step: they belong to.
          figures: by name.
        """
        if self._file is None or self._board is None:
            return
        # JSON has no NaN.
        row = {k: float(v) if np.isfinite(v) else None for k, v in figures.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        self._shown |= {k: v for k, v in figures.items() if k in SHOWN}
        text = "  ".join(f"{SHOWN[k]} {v:.3g}" for k, v in self._shown.items())
        self._progress.update(self._bar, completed=step, figures=text)
        if not self._console.is_terminal and (
            step == self._steps or time.monotonic() - self._printed >= _SECONDS
        ):
            self._printed = time.monotonic()
            self.say(f"step {step} of {self._steps}  {text}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def track(self, batches: Any, title: str) -> Iterator[Any]:
        """The elements of a sequence, with a bar of their own; in a log, a line now and then.

        Args:
          batches: an iterable with a length.
          title: what is done with them.

        Yields:
          Its elements.
        """
        task, total = self._progress.add_task(title, total=len(batches), figures=""), len(batches)
        printed = time.monotonic()
        for count, batch in enumerate(batches, 1):
            yield batch
            self._progress.update(task, completed=count)
            if not self._console.is_terminal and time.monotonic() - printed >= _SECONDS:
                printed = time.monotonic()
                self.say(f"{title}: {count} of {total} batches")
        self._progress.remove_task(task)


def say(text: str) -> None:
    """Prints a line before there is a log; only process 0 does."""
    console = Console(quiet=jax.process_index() != 0)
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _is_before(row: dict[str, Any], start: int) -> bool:
    evaluation = any(name.startswith("val/") for name in row)
    return row["step"] < start or (row["step"] == start and not evaluation)


_SECONDS = 10  # between the lines of a log


SHOWN = {"examples_per_second": "images/s", "loss": "loss", "val/mean_iou": "mIoU"}


def _rows(path: pathlib.Path) -> list[str]:
    """The whole rows of a log; a process killed while writing leaves half a row at the end."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
