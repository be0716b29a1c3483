"""What a run shows at its end: a table of figures, the training curves, and predictions."""

import json
import pathlib
from collections.abc import Callable

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from segjax import viz
from segjax.data import Source


def print_figures(figures: dict[str, float], *, title: str) -> None:
    """Prints the figures of an evaluation, each class's IoU and the means.

    Args:
      figures: see `tasks.semantic.summary`.
      title: a line above the table.
    """
    table = Table()
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, value in figures.items():
        if name.startswith("iou/"):
            table.add_row(name.removeprefix("iou/"), f"{value:.3f}")
    table.add_section()
    table.add_row("mean IoU", f"{figures['mean_iou']:.3f}", style="bold")
    table.add_row("mean Dice", f"{figures['mean_dice']:.3f}")
    table.add_row("pixel accuracy", f"{figures['pixel_accuracy']:.3f}")
    console = Console()
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(table)


def write_report(
    folder: pathlib.Path,
    figures: dict[str, float],
    source: Source,
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    examples: int = 4,
) -> None:
    """Prints the figures, and writes `evaluation.json`, `curves.png` and `predictions.png`.

    Args:
      folder: of the run, with its `metrics.jsonl`.
      figures: of the last evaluation.
      source: that it was made on.
      predict: images `[h, w, c]` to labels `[h, w]`.
      examples: how many of the source, spread over it, the picture shows.
    """
    print_figures(figures, title=f"{folder}: {len(source)} images")
    (folder / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")
    viz.training_curves(folder / "metrics.jsonl", path=folder / "curves.png")
    rows = []
    for index in np.linspace(0, len(source) - 1, min(examples, len(source))).astype(int):
        record = source[int(index)]
        image, labels = record.require("image"), record.require("labels")
        prediction = np.asarray(predict(image))
        figure = viz.side_by_side(image, labels, prediction, source.classes, where=record.where)
        rows.append(viz.figure_image(figure))
    width = max(row.shape[1] for row in rows)
    rows = [
        cv2.copyMakeBorder(r, 0, 0, 0, width - r.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3)
        for r in rows
    ]
    viz.save_image(folder / "predictions.png", np.concatenate(rows))
