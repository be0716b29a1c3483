"""Pictures of labels, predictions and training runs: NumPy and Matplotlib on the host."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8, UInt16
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from segjax.data.palette import palette
from segjax.data.source import Classes
from segjax.numerics import broadcast_where
from segjax.typing import Array

_Colors = UInt8[np.ndarray, "classes 3"] | Sequence[tuple[int, int, int]]

_WHITE, _GREY, _BLACK = (255, 255, 255), (190, 190, 190), (0, 0, 0)
_BLUE, _VERMILLION = palette(6)[4:]
_SPLIT_COLORS = {"train": _BLUE, "val": _VERMILLION}


def colorize(
    labels: Integer[Array, "*b h w"], colors: _Colors, *, where: Bool[Array, "*b h w"] | None = None
) -> UInt8[np.ndarray, "*b h w 3"]:
    """A label map as a picture: `colors[labels]`, and black where void.

    Args:
      labels: class ids `[*b, h, w]`.
      colors: RGB in 0..255, one a class.
      where: `[*b, h, w]`, False for void.

    Returns:
      RGB uint8 `[*b, h, w, 3]`.

    Raises:
      ValueError: if a label that is not void has no colour.

    Example:
      >>> colorize(np.array([[0, 1]]), palette(2))
      array([[[230, 159,   0],
              [ 86, 180, 233]]], dtype=uint8)
    """
    table, labels = np.asarray(colors, np.uint8), np.asarray(labels)
    valid = np.asarray(broadcast_where(where, labels.shape))
    strangers = labels[valid & ((labels < 0) | (labels >= len(table)))]
    if strangers.size:
        raise ValueError(f"labels holds {strangers[0]}; due are 0 to {len(table) - 1}")
    return np.where(valid[..., None], table[np.where(valid, labels, 0)], np.uint8(0))


def overlay(
    image: UInt8[Array, "*b h w c"] | Float[Array, "*b h w c"],
    labels: Integer[Array, "*b h w"],
    colors: _Colors,
    *,
    alpha: float = 0.5,
    where: Bool[Array, "*b h w"] | None = None,
) -> UInt8[np.ndarray, "*b h w 3"]:
    """A picture tinted by its label map: `(1 - alpha) image + alpha colors[labels]`.

    Args:
      image: `[*b, h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      labels: class ids `[*b, h, w]`.
      colors: RGB in 0..255, one a class.
      alpha: how much the colours cover, in 0..1.
      where: `[*b, h, w]`, False for void, where the picture stays as it is.

    Returns:
      RGB uint8 `[*b, h, w, 3]`.

    Raises:
      ValueError: if `image` and `labels` differ in size, if `image` is neither grey nor RGB, or if
        a label has no colour.

    Example:
      >>> overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), palette(2))
      array([[[115,  80,   0],
              [ 43,  90, 116]]], dtype=uint8)
    """
    picture, labels = _as_rgb(image), np.asarray(labels)
    if labels.shape != picture.shape[:-1]:
        raise ValueError(f"labels has shape {labels.shape}; due is {picture.shape[:-1]}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; due is a share in 0..1")
    tinted = np.rint((1 - alpha) * picture + alpha * colorize(labels, colors, where=where))
    valid = np.asarray(broadcast_where(where, labels.shape))
    return np.where(valid[..., None], tinted.astype(np.uint8), picture)


def side_by_side(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    truth: Integer[Array, "h w"],
    prediction: Integer[Array, "h w"],
    classes: Classes,
    *,
    where: Bool[Array, "h w"] | None = None,
) -> Figure:
    """A picture, its true and predicted labels, and where they differ, with a legend.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      truth: class ids `[h, w]`.
      prediction: class ids `[h, w]`.
      classes: their names and colours.
      where: `[h, w]`, False for void, which is grey.

    Returns:
      A figure of four panels; `.savefig(path)` writes it. The legend lists the classes present.

    Raises:
      ValueError: as `colorize` and `overlay`.

    Example:
      >>> classes = Classes(("sky", "road"), ((86, 180, 233), (150, 150, 150)))
      >>> labels = np.zeros((4, 6), np.int32)
      >>> figure = side_by_side(np.zeros((4, 6, 3)), labels, labels, classes)
      >>> [panel.get_title() for panel in figure.axes]
      ['image', 'truth', 'prediction', 'errors (black): 0.0 %']
    """
    picture, truth, prediction = _as_rgb(image), np.asarray(truth), np.asarray(prediction)
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.shape != picture.shape[:-1]:
            raise ValueError(f"{name} has shape {labels.shape}; due is {picture.shape[:-1]}")
    valid = np.asarray(broadcast_where(where, truth.shape))
    wrong = valid & (truth != prediction)
    outcome = np.where(valid, wrong.astype(np.int32), 2)
    panels = {
        "image": picture,
        "truth": colorize(np.where(valid, truth, len(classes)), (*classes.colors, _GREY)),
        "prediction": colorize(prediction, classes.colors),
        f"errors (black): {100 * wrong.sum() / max(valid.sum(), 1):.1f} %": colorize(
            outcome, (_WHITE, _BLACK, _GREY)
        ),
    }
    present = np.union1d(truth[valid], prediction)
    key = [(classes.names[i], classes.colors[i]) for i in present]
    if not valid.all():
        key.append(("void", _GREY))

    width, height = 13.2, 3.3 * picture.shape[0] / picture.shape[1]  # of the panels, in inches
    columns = max(1, int(width / (0.6 + 0.09 * max(len(name) for name, _ in key))))
    legend_height = 0.22 * math.ceil(len(key) / columns)
    figure = Figure((width, 0.5 + height + legend_height), dpi=150, layout="constrained")
    for axes, (title, pixels) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        axes.imshow(pixels)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    patches = [
        Patch(facecolor=f"#{bytes(color).hex()}", edgecolor="gray", linewidth=0.5, label=name)
        for name, color in key
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def figure_image(figure: Figure) -> UInt8[np.ndarray, "h w 3"]:
    """A Matplotlib figure as a picture.

    Args:
      figure: with any backend, or none.

    Returns:
      RGB uint8 `[h, w, 3]`: the figure's size in inches times its dots per inch.

    Example:
      >>> figure_image(Figure((2, 1), dpi=50)).shape
      (50, 100, 3)
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_image(
    path: str | Path,
    array: UInt8[Array, "h w"] | UInt16[Array, "h w"] | UInt8[Array, "h w c"],
) -> None:
    """Writes a picture or a label map to a file.

    Args:
      path: its suffix names the format, such as `.png`, which keeps every value, or `.jpg`.
      array: RGB `[h, w, 3]` in 0..255, or grey or class ids `[h, w]`.

    Raises:
      ValueError: if the format is unknown; names the file.
      TypeError: if `array` is neither uint8 nor uint16.
      OSError: if the file cannot be written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_image(f"{folder}/labels.png", np.zeros((4, 6), np.uint8))
    """
    pixels = np.asarray(array)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(_as_rgb(pixels), cv2.COLOR_RGB2BGR)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"array is {pixels.dtype}; due is uint8 or uint16")
    try:
        _, data = cv2.imencode(Path(path).suffix, pixels)
    except cv2.error as error:
        raise ValueError(f"{path}: no known image format, such as .png or .jpg") from error
    Path(path).write_bytes(data.tobytes())


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


def _as_rgb(image: Array) -> np.ndarray:
    """uint8 RGB of a grey or RGB image, uint8 or floating in 0..1."""
    pixels = np.asarray(image)
    if pixels.ndim < 3 or pixels.shape[-1] not in (1, 3):
        raise ValueError(f"image has shape {pixels.shape}; due is [*b, h, w, 1 or 3]")
    if jnp.issubdtype(pixels.dtype, jnp.floating):  # knows bfloat16 too
        pixels = np.rint(np.clip(pixels.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise TypeError(f"image is {pixels.dtype}; due is uint8 in 0..255 or floating in 0..1")
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))
