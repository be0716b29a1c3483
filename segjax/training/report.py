"""The report at the end of a run: a table of metrics, training curves and predictions."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from segjax import viz
from segjax.data import Classes, Source
from segjax.files import write_file
from segjax.inference.predictions import crop
from segjax.tasks import Task
from segjax.typing import Array

_SPELLINGS = {"iou": "IoU", "dice": "Dice", "pq": "PQ", "sq": "SQ", "rq": "RQ"} | {
    name: name.upper() for name in ("ap", "ap50", "ap75", "ar")
}


def print_metrics(metrics: dict[str, float], *, title: str, classes: Classes | None = None) -> None:
    """Prints the metrics of an evaluation as a table: those of each class, and the means.

    Args:
      metrics: Metrics from a task's `summary`, the most important mean first.
      title: Line above the table.
      classes: Classes of the data. If they tell things from stuff, the table separates them.
    """
    means = {name: value for name, value in metrics.items() if "/" not in name}
    kinds = list(dict.fromkeys(name.split("/", 1)[0] for name in metrics if "/" in name))
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics if "/" in name))
    table = Table()
    table.add_column("class" if names else "", overflow="fold")
    for kind in kinds or [""]:
        table.add_column(_title(kind), justify="right")

    def cell(value):  # COCO's metrics are -1 if there is no object to find
        return "" if value is None else "–" if value < 0 else f"{value:.3f}"

    def add_row(name, values, **options):
        table.add_row(name, *map(cell, values), **options)

    things = set()
    if classes is not None and classes.things:
        things = {n for n, thing in zip(classes.names, classes.things, strict=True) if thing}
    for group in ([n for n in names if n in things], [n for n in names if n not in things]):
        for name in group:
            add_row(name, [metrics.get(f"{kind}/{name}") for kind in kinds])
        table.add_section()
    # Means of the kinds go into their columns; each of the other means gets a row.
    forms = {"mean": ("mean_{}", "{}"), "mean of things": ("{}_things",)}
    forms["mean of stuff"] = ("{}_stuff",)
    for label, patterns in forms.items():
        keys = [next((k for p in patterns if (k := p.format(x)) in means), None) for x in kinds]
        values = [None if key is None else means.pop(key) for key in keys]
        if any(value is not None for value in values):
            add_row(label, values, style="bold" if label == "mean" else None)
    table.add_section()
    for name, value in means.items():
        add_row(_title(name), [value])
    console = Console()
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(table)


def print_confusion(counts: Array, classes: Classes, *, most: int = 10) -> None:
    """Prints a confusion matrix, or only its largest entries if it is too wide.

    Args:
      counts: Integers `[c, c]`, numbers of pixels; rows are labels, columns are predictions.
      classes: Classes of the data.
      most: Number of entries to print if the matrix is too wide.
    """
    console = Console()
    counts = np.asarray(counts)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = np.flatnonzero(counts.sum(0) + counts.sum(1))
    names = [classes.names[c] for c in shown]
    rows = [f"{i} {name}" for i, name in enumerate(names)]
    width = max(map(len, rows), default=0) + 6 * len(rows) + 4
    if width <= console.width:
        console.print("confusion matrix: predictions in % of the pixels of each label")
        table = Table()
        table.add_column("label")
        for i in range(len(rows)):
            table.add_column(str(i), justify="right", min_width=3)
        for name, row in zip(rows, shares[np.ix_(shown, shown)], strict=True):
            table.add_row(name, *(f"{x:.0f}" if x >= 0.5 else "" for x in row))
    else:
        console.print("most frequent confusions")
        table = Table()
        table.add_column("label", overflow="fold")
        table.add_column("predicted as", overflow="fold")
        table.add_column("% of the label", justify="right")
        wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
        for place in np.argsort(-wrong, axis=None, kind="stable")[:most]:
            row, column = np.unravel_index(place, wrong.shape)
            if wrong[row, column]:
                share = f"{shares[row, column]:.1f}"
                table.add_row(classes.names[row], classes.names[column], share)
    console.print(table)


def _title(name: str) -> str:
    """The name of a metric as it is usually written: "mean IoU" for `mean_iou`."""
    return " ".join(_SPELLINGS.get(word, word) for word in name.split("_"))


def write_report(
    folder: pathlib.Path,
    metrics: dict[str, float],
    source: Source,
    task: Task,
    predictions: Mapping[int, Any],
) -> None:
    """Prints the metrics, and writes `evaluation.json`, `curves.png` and `predictions.png`.

    Args:
      folder: Folder of the run, with its `metrics.jsonl`.
      metrics: Metrics of the last evaluation.
      source: Split that was evaluated.
      task: Task, which draws the predictions.
      predictions: Predictions for some examples by index, as in `Evaluation`.
    """
    title = f"{folder}: evaluation on {len(source)} images"
    print_metrics(metrics, title=title, classes=source.classes)
    write_file(folder / "evaluation.json", json.dumps(metrics, indent=2) + "\n")
    viz.training_curves(
        folder / "metrics.jsonl", path=folder / "curves.png", classes=source.classes
    )
    rows = []
    for index in sorted(predictions):
        record = source[index]
        prediction = crop(predictions[index], record.require("image").shape[:2])
        rows.append(task.draw(record, prediction, source.classes))
    viz.save_image(folder / "predictions.png", viz.page(rows, source.classes))
