"""The log of a run: `metrics.jsonl` always, TensorBoard beside it, a progress bar on a terminal."""

import json
import pathlib
from typing import TextIO

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter


class Logger:
    """Writes figures by step; only process 0 writes at all.

    Rows of steps after `start` are dropped first: a run that goes on from step `start` takes them
    anew.

    Args:
      folder: of the run; gets `metrics.jsonl` and `tensorboard/`.
      start: the step that the run goes on from.
      steps: of the whole training.
    """

    def __init__(self, folder: pathlib.Path, *, start: int, steps: int):
        self._console = Console(quiet=jax.process_index() != 0)
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal or jax.process_index() != 0,
        )
        self._bar = self._progress.add_task("", total=steps, completed=start, figures="")
        self._shown: dict[str, float] = {}
        self._file: TextIO | None = None
        self._board: SummaryWriter | None = None
        if jax.process_index() == 0:
            path = folder / "metrics.jsonl"
            kept = [line for line in _rows(path) if json.loads(line)["step"] <= start]
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
        if not self._console.is_terminal:
            self._console.print(f"step {step}  {text}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True)


SHOWN = {"examples_per_second": "images/s", "loss": "loss", "val/mean_iou": "mIoU"}


def _rows(path: pathlib.Path) -> list[str]:
    """The whole rows of a log; a process killed while writing leaves half a row at the end."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
