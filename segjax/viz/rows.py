"""Pages that compare labels with predictions: a row for each example, and one legend."""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from segjax.data.source import Classes
from segjax.numerics import broadcast_where
from segjax.typing import Array, Instances, Panoptic
from segjax.viz.labels import VOID, colorize
from segjax.viz.objects import draw_instances, draw_panoptic, has_one_thing
from segjax.viz.pictures import as_rgb, resize_picture
from segjax.viz.text import font, write

_WIDTH, _GAP, _TEXT = 1320, 8, 15  # layout of a page, in pixels
_WHITE, _BLACK, _EDGE = (255, 255, 255), (0, 0, 0), (120, 120, 120)


@dataclasses.dataclass(frozen=True)
class Row:
    """Pictures of one example, side by side.

    Attributes:
      panels: RGB uint8 pictures `[h, w, 3]` of one size, by title.
      classes: ids of the classes in the pictures.
      void: whether there is void in the pictures.
      note: text in the corner of the last picture.
    """

    panels: dict[str, np.ndarray]
    classes: frozenset[int]
    void: bool = False
    note: str = ""


def compare_labels(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    truth: Integer[Array, "h w"],
    prediction: Integer[Array, "h w"],
    classes: Classes,
    *,
    where: Bool[Array, "h w"] | None = None,
) -> Row:
    """Compares true and predicted labels: picture, both label maps, and errors.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      truth: true class ids `[h, w]`.
      prediction: predicted class ids `[h, w]`.
      classes: names and colours of the classes.
      where: `[h, w]`, False for void, which is drawn grey.

    Returns:
      A row of four pictures, with the share of wrong pixels as its note.

    Raises:
      ValueError: if the sizes differ, if `image` is neither grey nor RGB, or if a label has no
        colour.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> classes = data.Classes(("sky", "road"), ((86, 180, 233), (150, 150, 150)))
      >>> labels = np.zeros((4, 6), np.int32)
      >>> row = viz.compare_labels(np.zeros((4, 6, 3)), labels, labels, classes)
      >>> list(row.panels), row.note
      (['image', 'truth', 'prediction', 'errors'], '0.0 %')
    """
    picture, truth, prediction = as_rgb(image), np.asarray(truth), np.asarray(prediction)
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.shape != picture.shape[:-1]:
            raise ValueError(f"{name}: expected shape {picture.shape[:-1]}, got {labels.shape}")
    valid = np.asarray(broadcast_where(where, truth.shape))
    wrong = valid & (truth != prediction)
    outcome = np.where(valid, wrong.astype(np.int32), 2)
    maps = {
        "truth": colorize(np.where(valid, truth, len(classes)), (*classes.colors, VOID)),
        "prediction": colorize(prediction, classes.colors),
        "errors": colorize(outcome, (_WHITE, _BLACK, VOID)),
    }
    size = _panel_size(picture.shape, panels=4)
    panels = {"image": resize_picture(picture, size)} | {
        title: resize_picture(pixels, size, nearest=True) for title, pixels in maps.items()
    }
    return Row(
        panels,
        frozenset(np.union1d(truth[valid], prediction).tolist()),
        void=not valid.all(),
        note=f"{100 * wrong.sum() / max(valid.sum(), 1):.1f} %",
    )


def compare_instances(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    truth: Instances,
    prediction: Instances,
    classes: Classes,
) -> Row:
    """Compares true objects with those predicted with a score of at least 0.5.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      truth: the true objects.
      prediction: the predicted objects.
      classes: names and colours of the classes.

    Returns:
      A row of three pictures.

    Raises:
      ValueError: if `image` is neither grey nor RGB, or the masks differ from it in size.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> from segjax.typing import Instances
      >>> box, one = np.array([[1.0, 1.0, 3.0, 3.0]], np.float32), np.zeros(1, np.int32)
      >>> objects = Instances(box, one, np.array([True]))
      >>> classes = data.Classes(("car", "bus"), ((200, 0, 0), (0, 0, 200)))
      >>> row = viz.compare_instances(np.zeros((4, 4, 3)), objects, objects, classes)
      >>> list(row.panels), row.classes
      (['image', 'truth', 'prediction'], frozenset({0}))
    """
    picture = as_rgb(image)
    size = _panel_size(picture.shape, panels=3)
    panels = {"image": resize_picture(picture, size)}
    shown: set[int] = set()
    for title, objects in (("truth", truth), ("prediction", prediction)):
        panels[title] = draw_instances(picture, objects, classes, size=size)
        drawn = np.asarray(objects.valid)
        if objects.scores is not None:
            drawn = drawn & (np.asarray(objects.scores) >= 0.5)
        shown |= set(np.asarray(objects.classes)[drawn].tolist())
    return Row(panels, frozenset() if has_one_thing(classes) else frozenset(shown))


def compare_segments(
    image: UInt8[Array, "h w c"] | Float[Array, "h w c"],
    truth: Panoptic,
    prediction: Panoptic,
    classes: Classes,
) -> Row:
    """Compares true and predicted panoptic segments.

    Args:
      image: `[h, w, c]`, grey or RGB; uint8 in 0..255, or floating in 0..1.
      truth: the true segments.
      prediction: the predicted segments.
      classes: names and colours of the classes, and which are things.

    Returns:
      A row of three pictures.

    Raises:
      ValueError: if `image` is neither grey nor RGB, or the segments differ from it in size.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> from segjax.typing import Panoptic
      >>> segments = Panoptic(np.array([[0, -1]]), np.array([0], np.int32), np.array([True]))
      >>> classes = data.Classes(("sky",), ((9, 9, 9),))
      >>> row = viz.compare_segments(np.zeros((1, 2, 3)), segments, segments, classes)
      >>> list(row.panels), row.classes
      (['image', 'truth', 'prediction'], frozenset({0}))
    """
    picture = as_rgb(image)
    size = _panel_size(picture.shape, panels=3)
    panels = {"image": resize_picture(picture, size)}
    shown: set[int] = set()
    for title, panoptic in (("truth", truth), ("prediction", prediction)):
        panels[title] = draw_panoptic(picture, panoptic, classes, size=size)
        numbers = np.unique(panoptic.segments)
        numbers = numbers[numbers >= 0]
        numbers = numbers[np.asarray(panoptic.valid)[numbers]]
        shown |= set(np.asarray(panoptic.classes)[numbers].tolist())
    return Row(panels, frozenset(shown))


def page(rows: Sequence[Row], classes: Classes) -> UInt8[np.ndarray, "h 1320 3"]:
    """Stacks rows to a page, with titles at the top and a legend at the bottom.

    Args:
      rows: rows of the same task, at least one.
      classes: names and colours of the classes.

    Returns:
      RGB uint8, 1320 pixels wide. The legend lists the classes of all rows.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> classes = data.Classes(("sky", "road"), ((86, 180, 233), (150, 150, 150)))
      >>> labels = np.zeros((4, 6), np.int32)
      >>> row = viz.compare_labels(np.zeros((4, 6, 3)), labels, labels, classes)
      >>> viz.page([row, row], classes).shape[1]
      1320
    """
    titles = list(rows[0].panels)
    column = _column(len(titles))
    lefts = [_GAP + i * (column + _GAP) for i in range(len(titles))]
    head = np.full((2 * _TEXT, _WIDTH, 3), 255, np.uint8)
    for left, title in zip(lefts, titles, strict=True):
        write(head, title, (left + column / 2, _TEXT), _TEXT + 1, anchor="mm")
    parts = [head]
    for row in rows:
        height = next(iter(row.panels.values())).shape[0]
        strip = np.full((height + _GAP, _WIDTH, 3), 255, np.uint8)
        for left, picture in zip(lefts, row.panels.values(), strict=True):
            start = left + (column - picture.shape[1]) // 2
            strip[:height, start : start + picture.shape[1]] = picture
            corners = (start - 1, 0), (start + picture.shape[1], height - 1)
            cv2.rectangle(strip, *corners, _EDGE, 1)
        if row.note:
            right, bottom = start + picture.shape[1], height - 1
            left = right - round(font(_TEXT).getlength(row.note)) - 10
            cv2.rectangle(strip, (left, bottom - _TEXT - 6), (right, bottom), _WHITE, -1)
            cv2.rectangle(strip, (left, bottom - _TEXT - 6), (right, bottom), _EDGE, 1)
            write(strip, row.note, (right - 5, bottom - 3), _TEXT, anchor="rb")
        parts.append(strip)
    shown = frozenset().union(*(row.classes for row in rows))
    entries = [(classes.names[c], classes.colors[c]) for c in sorted(shown)]
    if any(row.void for row in rows):
        entries.append(("void", VOID))
    return np.concatenate([*parts, _legend(entries)])


def _legend(entries: list[tuple[str, tuple[int, int, int]]]) -> np.ndarray:
    """A legend of colours and names, in columns."""
    if not entries:
        return np.full((_GAP, _WIDTH, 3), 255, np.uint8)
    patch, line = 22, 22
    cell = patch + 24 + max(font(_TEXT).getlength(name) for name, _ in entries)
    columns = max(1, min(len(entries), int((_WIDTH - 2 * _GAP) / cell)))
    columns = math.ceil(len(entries) / math.ceil(len(entries) / columns))  # evenly filled lines
    lines = math.ceil(len(entries) / columns)
    legend = np.full((lines * line + 2 * _GAP, _WIDTH, 3), 255, np.uint8)
    start = max(_GAP, (_WIDTH - columns * cell + 16) / 2)
    for i, (name, color) in enumerate(entries):
        x, y = start + i % columns * cell, _GAP + i // columns * line
        corners = (round(x), y + 4), (round(x) + patch, y + line - 5)
        cv2.rectangle(legend, *corners, tuple(map(int, color)), -1)
        cv2.rectangle(legend, *corners, _EDGE, 1)
        write(legend, name, (round(x) + patch + 7, y + line // 2), _TEXT, anchor="lm")
    return legend


def _column(panels: int) -> int:
    return (_WIDTH - (panels + 1) * _GAP) // panels


def _panel_size(shape: tuple[int, ...], *, panels: int) -> tuple[int, int]:
    """(height, width) of a panel: as wide as its column unless it is much higher than wide."""
    width = _column(panels)
    scale = min(width / shape[1], 1.5 * width / shape[0])
    return max(1, round(scale * shape[0])), max(1, round(scale * shape[1]))
