"""Label maps as pictures, alone and beside the truth."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segjax.data.source import Classes
from segjax.numerics import broadcast_where
from segjax.typing import Array
from segjax.viz.pictures import as_rgb

Colors = UInt8[np.ndarray, "classes 3"] | Sequence[tuple[int, int, int]]

_WHITE, _GREY, _BLACK = (255, 255, 255), (190, 190, 190), (0, 0, 0)


def colorize(
    labels: Integer[Array, "*b h w"], colors: Colors, *, where: Bool[Array, "*b h w"] | None = None
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
      >>> colorize(np.array([[0, 1]]), ((230, 159, 0), (86, 180, 233)))
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
    colors: Colors,
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
      >>> colors = (230, 159, 0), (86, 180, 233)
      >>> overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), colors)
      array([[[115,  80,   0],
              [ 43,  90, 116]]], dtype=uint8)
    """
    picture, labels = as_rgb(image), np.asarray(labels)
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
    picture, truth, prediction = as_rgb(image), np.asarray(truth), np.asarray(prediction)
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
