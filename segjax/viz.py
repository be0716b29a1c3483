"""Pictures of labels, predictions and training runs: NumPy and Matplotlib on the host."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from segjax.data.source import Classes
from segjax.numerics import broadcast_where
from segjax.typing import Array

_Colors = UInt8[np.ndarray, "classes 3"] | Sequence[tuple[int, int, int]]

_OKABE_ITO = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
)
_WHITE, _GREY, _BLACK = (255, 255, 255), (190, 190, 190), (0, 0, 0)
_SPLIT_COLORS = {"train": _OKABE_ITO[4], "val": _OKABE_ITO[5]}

# What trichromats, protanopes and deuteranopes see, of linear RGB.
_VISIONS = np.array(
    [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ]
)


def palette(num_classes: int) -> UInt8[np.ndarray, "{num_classes} 3"]:
    """Colours that stay apart from each other also in the eyes of the red- or green-blind.

    First the seven colours of Okabe and Ito; then, one after the other, the one of a regular grid
    in RGB whose least distance `min_vision ΔE*ab` to all before it is largest. The grid's colours
    of lightness below 30 or above 90 are left out: they would pass for black or white.

    Args:
      num_classes: how many, up to 3449.

    Returns:
      RGB uint8 `[num_classes, 3]`; the first ones do not depend on how many are asked for.

    Raises:
      ValueError: if `num_classes` is negative or more than there are.

    Example:
      >>> palette(2)
      array([[230, 159,   0],
             [ 86, 180, 233]], dtype=uint8)

    Source: Okabe and Ito, Color Universal Design, 2008; Machado, Oliveira and Fernandes, A
    Physiologically-based Model for Simulation of Color Vision Deficiency, 2009, table 1.
    """
    levels = np.linspace(0, 255, 16)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    seen = _appearances(grid)
    legible = (seen[0, :, 0] >= 30) & (seen[0, :, 0] <= 90)
    grid, seen = grid[legible], seen[:, legible]
    most = len(_OKABE_ITO) + len(grid)
    if not 0 <= num_classes <= most:
        raise ValueError(f"num_classes is {num_classes}; due is 0 to {most}")

    colors = np.array(_OKABE_ITO)
    distance = _color_difference(seen[:, :, None], _appearances(colors)[:, None]).min(axis=1)
    chosen = []
    for _ in range(num_classes - len(colors)):
        chosen.append(distance.argmax())
        distance = np.minimum(distance, _color_difference(seen, seen[:, chosen[-1:]]))
    return np.concatenate([colors, grid[chosen]])[:num_classes].astype(np.uint8)


def colorize(
    labels: Int[Array, "*b h w"], colors: _Colors, *, where: Bool[Array, "*b h w"] | None = None
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
    labels: Int[Array, "*b h w"],
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
    truth: Int[Array, "h w"],
    prediction: Int[Array, "h w"],
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
    columns = max(1, min(3, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), dpi=120, layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "no metrics yet", ha="center", va="center")
    for place, (metric, curves) in enumerate(panels.items(), start=1):
        _draw_curves(figure.add_subplot(rows, columns, place), metric, curves)
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


def _appearances(colors: np.ndarray) -> np.ndarray:
    """CIE L*a*b* `[vision, n, 3]` of RGB `[n, 3]` in 0..255 to each vision."""
    scaled = colors / 255
    linear = np.where(scaled > 0.04045, ((scaled + 0.055) / 1.055) ** 2.4, scaled / 12.92)
    seen = np.clip(np.einsum("vij,nj->vni", _VISIONS, linear), 0, 1)
    return cv2.cvtColor(seen.astype(np.float32), cv2.COLOR_LRGB2Lab)


def _color_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ΔE*ab of colours `[vision, ..., 3]`, to whichever vision tells them apart the least."""
    return np.linalg.norm(a - b, axis=-1).min(axis=0)
