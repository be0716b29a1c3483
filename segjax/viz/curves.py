"""The curves of a training run."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from segjax.data.palette import palette

_BLUE, _VERMILLION = palette(6)[4:]
_SPLIT_COLORS = {"train": _BLUE, "val": _VERMILLION}


def training_curves(metrics: str | Path, *, path: str | Path) -> None:
    """Draws every metric of a run over its steps, training and validation in one panel.

    A training metric that spans more than a factor of ten, such as a loss, has a logarithmic axis.

    Args:
      metrics: a file of JSON lines such as `{"step": 10, "loss": 0.7, "learning_rate": 0.01}` and
        `{"step": 100, "val/loss": 0.6, "val/mean_iou": 0.5}`. Of rows that repeat a step, as after
        a resumed run, the last counts; lines that a crash tore are skipped.
      path: of the picture; its suffix names the format.

    Raises:
      OSError: if a file cannot be read or written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     rows = '{"step": 10, "loss": 0.7}\\n{"step": 20, "val/loss": 0.6}'
      ...     _ = Path(folder, "metrics.jsonl").write_text(rows)
      ...     training_curves(f"{folder}/metrics.jsonl", path=f"{folder}/curves.png")
    """
    panels = _read_curves(Path(metrics))
    # A metric of many curves, such as one a class, has a legend beside it, and so its own row.
    wide = [metric for metric, curves in panels.items() if len(curves) > 2]
    narrow = [metric for metric in panels if metric not in wide]
    columns = max(1, min(3, len(narrow)))
    narrow_rows = math.ceil(len(narrow) / columns)
    rows = max(1, narrow_rows + len(wide))
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), dpi=120, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    cells = [grid[divmod(place, columns)] for place in range(len(narrow))]
    cells += [grid[narrow_rows + place, :] for place in range(len(wide))]
    if not panels:
        figure.text(0.5, 0.5, "no metrics yet", ha="center", va="center")
    for cell, metric in zip(cells, narrow + wide, strict=True):
        _draw_curves(figure.add_subplot(cell), metric, panels[metric])
    figure.savefig(path)


def _read_curves(path: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Metric → curve → step → value; `val/iou/car` is the curve "car" of the metric "iou"."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        for name, value in row.items():
            if name == "step" or not isinstance(value, int | float):
                continue
            split = "val" if name.startswith("val/") else "train"
            metric, _, part = name.removeprefix("val/").partition("/")
            panels.setdefault(metric, {}).setdefault(part or split, {})[row["step"]] = value
    return panels


def _draw_curves(axes: Axes, metric: str, curves: dict[str, dict[int, float]]) -> None:
    for (name, points), color in zip(curves.items(), palette(len(curves)), strict=True):
        steps = sorted(points)
        axes.plot(
            steps,
            [points[step] for step in steps],
            color=np.divide(_SPLIT_COLORS.get(name, color), 255),
            marker="." if len(steps) <= 50 else None,
            linewidth=1.3,
            label=name,
        )
    if metric != "learning_rate" and _spans_a_decade(curves.get("train", {}).values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(metric.replace("_", " "), loc="left")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2}
    place: dict[str, Any] = above if len(curves) <= 2 else beside
    if len(curves) <= 20:  # more names than that do not fit
        axes.legend(handles=axes.lines, frameon=False, fontsize="small", **place)


def _spans_a_decade(values: Iterable[float]) -> bool:
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and 0 < 10 * min(finite) < max(finite)
