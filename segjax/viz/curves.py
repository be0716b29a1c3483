"""Curves of training runs."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from segjax.data.palette import palette
from segjax.data.source import Classes
from segjax.viz.figures import write_figure

Curves = dict[str, dict[int, float]]  # name → step → value

_MOST_NAMES = 20  # in a legend, which then fits beside its panel
_WRITTEN = {"iou": "IoU", "dice": "Dice"} | {
    name: name.upper() for name in ("pq", "sq", "rq", "ap", "ap50", "ap75", "ar")
}


def training_curves(
    metrics: str | Path, *, path: str | Path, classes: Classes | None = None
) -> None:
    """Draws all metrics of a training run over its steps.

    Training and validation share a panel, and so do the mean scores. Scores by class have a panel
    for each metric, with a legend in the order of the last values. A training metric that spans
    more than a factor of ten, such as a loss, has a logarithmic axis.

    Args:
      metrics: path of a file of JSON lines such as `{"step": 10, "loss": 0.7, "learning_rate":
        0.01}` and `{"step": 100, "val/mean_iou": 0.5, "val/iou/car": 0.4}`. If several rows have
        the same step, as in a resumed run, the last counts; incomplete lines are skipped.
      path: file to write; its suffix gives the format.
      classes: classes whose curves are drawn in their colours; other curves have palette colours.

    Raises:
      OSError: if a file cannot be read or written.

    Example:
      >>> from pathlib import Path
      >>> from segjax import viz
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     rows = '{"step": 10, "loss": 0.7}\\n{"step": 20, "val/mean_iou": 0.6}'
      ...     _ = Path(folder, "metrics.jsonl").write_text(rows)
      ...     viz.training_curves(f"{folder}/metrics.jsonl", path=f"{folder}/curves.png")
    """
    panels = _read_curves(Path(metrics))
    steps = (step for curves in panels.values() for points in curves.values() for step in points)
    last = max(steps, default=1)
    # A metric of many curves has a row of its own: a legend takes the last of three columns.
    wide = [metric for metric, curves in panels.items() if len(curves) > 2]
    narrow = [metric for metric in panels if metric not in wide]
    columns = 3 if len(narrow) > 2 or wide else max(1, len(narrow))
    narrow_rows = math.ceil(len(narrow) / columns)
    heights = [2.9] * narrow_rows + [
        max(2.9, 0.6 + 0.19 * min(len(panels[metric]), _MOST_NAMES + 1)) for metric in wide
    ]
    size = 4.2 * columns, sum(heights) or 2.9
    figure = Figure(figsize=size, dpi=105, layout="constrained")
    grid = figure.add_gridspec(len(heights) or 1, columns, height_ratios=heights or [1])
    cells = [grid[divmod(place, columns)] for place in range(len(narrow))]
    cells += [grid[narrow_rows + place, :2] for place in range(len(wide))]
    if not panels:
        figure.text(0.5, 0.5, "no metrics yet", ha="center", va="center")
    colors = {} if classes is None else dict(zip(classes.names, classes.colors, strict=True))
    for cell, metric in zip(cells, narrow + wide, strict=True):
        _draw_curves(figure.add_subplot(cell), metric, panels[metric], colors, last)
    write_figure(path, figure)


def _read_curves(path: Path) -> dict[str, Curves]:
    """Panel → curve → step → value; `val/iou/car` is the curve "car" of the panel "iou"."""
    panels: dict[str, Curves] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        for name, value in row.items():
            if name == "step" or not isinstance(value, int | float):
                continue
            is_val = name.startswith("val/")
            metric, _, part = name.removeprefix("val/").partition("/")
            if is_val and value < 0:  # COCO's value for metrics without any object
                continue
            panels.setdefault(metric, {}).setdefault(part or ("val" if is_val else "train"), {})[
                row["step"]
            ] = value
    # A metric with a value only in validation is a mean score; those of its classes stay a panel.
    means = {
        _title(metric): curves.pop("val")
        for metric, curves in panels.items()
        if "val" in curves and "train" not in curves
    }
    train = {metric: curves for metric, curves in panels.items() if "train" in curves}
    rest = {metric: curves for metric, curves in panels.items() if curves}
    return train | ({"scores": means} if means else {}) | rest


def _draw_curves(
    axes: Axes,
    metric: str,
    curves: Curves,
    colors: Mapping[str, Sequence[int]],
    last: int,
) -> None:
    values = [value for points in curves.values() for value in points.values()]
    is_score = "train" not in curves and all(0 <= value <= 1 for value in values)
    fallback = dict(zip(curves, palette(len(curves)).tolist(), strict=True))
    fallback |= dict(zip(("train", "val"), palette(6)[4:].tolist(), strict=True))
    for name, points in curves.items():
        steps = sorted(points)
        axes.plot(
            steps,
            [points[step] for step in steps],
            color=_on_white(colors.get(name, fallback[name])),
            marker="o" if len(steps) == 1 else "." if len(steps) <= 50 else None,
            linewidth=1.3,
            label=name,
        )
    axes.set_xlim(0, 1.03 * last)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if is_score:
        top = next(limit for limit in (0.05, 0.1, 0.2, 0.5, 1.0) if max(values) <= limit)
        axes.set_ylim(0, 1.02 * top)
    elif metric != "learning_rate" and _spans_a_decade(curves.get("train", {}).values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_formatter("{x:g}")
        if metric == "learning_rate":
            axes.set_ylim(bottom=0)
    axes.set_title(_title(metric), loc="left")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _add_legend(axes, curves)


def _add_legend(axes: Axes, curves: Curves) -> None:
    """A legend above up to two curves; beside more, sorted by last value and shortened if long."""
    lines = list(axes.lines)
    if len(lines) <= 2:
        above: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2}
        if len(lines) == 2 or lines[0].get_label() != "train":
            axes.legend(handles=lines, frameon=False, fontsize="small", **above)
        return
    lines.sort(key=lambda line: -_last(line))
    names = [f"{line.get_label()!s}  {_last(line):.2f}" for line in lines]
    if len(lines) > _MOST_NAMES:
        half, gap = _MOST_NAMES // 2, axes.plot([], [], " ")[0]
        left_out = f"… {len(lines) - 2 * half} between …"
        lines = [*lines[:half], gap, *lines[-half:]]
        names = [*names[:half], left_out, *names[-half:]]
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    axes.legend(lines, names, frameon=False, fontsize="small", **place).set_in_layout(False)


def _last(line: Line2D) -> float:
    return float(np.asarray(line.get_ydata())[-1])


def _on_white(color: Sequence[int]) -> tuple[float, float, float]:
    """The colour, darkened if it is too light on white."""
    luminance = np.dot(color, (0.2126, 0.7152, 0.0722)) / 255
    red, green, blue = np.multiply(color, min(1, 0.72 / max(luminance, 1e-6)) / 255).tolist()
    return red, green, blue


def _title(name: str) -> str:
    return " ".join(_WRITTEN.get(word, word) for word in name.split("_"))


def _spans_a_decade(values: Iterable[float]) -> bool:
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and 0 < 10 * min(finite) < max(finite)
