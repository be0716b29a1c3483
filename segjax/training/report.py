"""What a run shows at its end: a table of figures, the training curves, and predictions."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from segjax import viz
from segjax.data import Source
from segjax.tasks import Task

_WRITTEN = {"iou": "IoU", "dice": "Dice", "pq": "PQ", "sq": "SQ", "rq": "RQ"} | {
    name: name.upper() for name in ("ap", "ap50", "ap75", "ar")
}


def print_figures(figures: dict[str, float], *, title: str) -> None:
    """Prints the figures of an evaluation: those of each class, and the means.

    Args:
      figures: of a task's `summary`, the most important mean first.
      title: a line above the table.
    """
    means = {name: value for name, value in figures.items() if "/" not in name}
    kinds = list(dict.fromkeys(name.split("/", 1)[0] for name in figures if "/" in name))
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in figures if "/" in name))
    table = Table()
    table.add_column("class" if names else "")
    for kind in kinds or [""]:
        table.add_column(_title(kind), justify="right")
    for name in names:
        values = [figures.get(f"{kind}/{name}") for kind in kinds]
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    table.add_section()
    for i, (name, value) in enumerate(means.items()):
        table.add_row(_title(name), f"{value:.3f}", style=None if i else "bold")
    console = Console()
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(table)


def _title(name: str) -> str:
    """A figure's name as people write it: `mean_iou` is "mean IoU"."""
    return " ".join(_WRITTEN.get(word, word) for word in name.split("_"))


def write_report(
    folder: pathlib.Path,
    figures: dict[str, float],
    source: Source,
    task: Task,
    predict: Callable[[np.ndarray], Any],
    *,
    examples: int = 4,
) -> None:
    """Prints the figures, and writes `evaluation.json`, `curves.png` and `predictions.png`.

    Args:
      folder: of the run, with its `metrics.jsonl`.
      figures: of the last evaluation.
      source: that it was made on.
      task: draws the examples.
      predict: an image `[h, w, c]` to what the task predicts of it.
      examples: how many of the source, spread over it, the picture shows.
    """
    print_figures(figures, title=f"{folder}: {len(source)} images")
    (folder / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")
    viz.training_curves(folder / "metrics.jsonl", path=folder / "curves.png")
    rows = []
    for index in np.linspace(0, len(source) - 1, min(examples, len(source))).astype(int):
        record = source[int(index)]
        prediction = jax.device_get(predict(record.require("image")))
        rows.append(viz.figure_image(task.draw(record, prediction, source.classes)))
    width = max(row.shape[1] for row in rows)
    rows = [
        cv2.copyMakeBorder(r, 0, 0, 0, width - r.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3)
        for r in rows
    ]
    viz.save_image(folder / "predictions.png", np.concatenate(rows))
