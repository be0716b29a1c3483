"""Fits the host's examples onto canvases of a given size: scale, cut, pad."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from segjax.typing import Record

_MAPS = ("labels", "where", "edges", "scribbles")
_FITTED = {"image", *_MAPS, "size", "index", "valid"}


def rescale(record: Record, scale: float) -> Record:
    """Resizes the picture: areas averaged to shrink it, bilinear to enlarge it, maps nearest.

    Args:
      record: an example of NumPy arrays; of its labels only maps `[h, w]`.
      scale: output pixels per input pixel, above 0.

    Returns:
      The example on `round(scale * (h, w))` pixels, at least 1 each way.

    Raises:
      ValueError: it has labels that cannot be fitted, such as instances.

    Example:
      >>> rescale(Record(image=np.zeros((6, 8, 3), np.uint8)), 0.5).image.shape
      (3, 4, 3)
    """
    if scale == 1.0:
        return record
    height, width = (max(1, round(side * scale)) for side in _picture(record).shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def image(pixels):  # OpenCV drops the axis of a single channel
        resized = cv2.resize(pixels, (width, height), interpolation=interpolation)
        return resized.reshape(height, width, -1)

    def nearest(pixels):
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip((height, width), pixels.shape, strict=True)
        )
        return pixels[rows[:, None], columns]

    return _each(record, image, nearest)


def random_window(record: Record, shape: tuple[int, int], generator: np.random.Generator) -> Record:
    """Cuts a window out where the picture is larger than it, and pads where it is smaller.

    Args:
      record: an example of NumPy arrays; of its labels only maps `[h, w]`.
      shape: (height, width) of the window.
      generator: draws its place, uniform over all that lie within the picture.

    Returns:
      The example on a canvas of `shape`, padded as `pad` does it.

    Example:
      >>> record = Record(image=np.zeros((6, 3, 3), np.uint8))
      >>> random_window(record, (4, 4), np.random.default_rng(0)).size
      array([4, 3], dtype=int32)
    """
    free = np.maximum(np.subtract(_picture(record).shape[:2], shape), 0)
    top, left = generator.integers(free + 1)
    window = np.s_[top : top + shape[0], left : left + shape[1]]
    return pad(_each(record, lambda pixels: pixels[window], lambda pixels: pixels[window]), shape)


def pad(
    record: Record, shape: tuple[int, int], *, mode: Literal["constant", "edge"] = "constant"
) -> Record:
    """Pads an example at the bottom and the right.

    Args:
      record: an example of NumPy arrays; of its labels only maps `[h, w]`.
      shape: (height, width) of the canvas, no smaller than the picture.
      mode: NumPy's for the image: "constant" is black, "edge" repeats the border.

    Returns:
      The example on its canvas, `where` False in the padding and `size` that of the picture.

    Example:
      >>> pad(Record(image=np.zeros((1, 2, 3), np.uint8)), (1, 3)).where
      array([[ True,  True, False]])
    """
    height, width = _picture(record).shape[:2]
    margins = ((0, shape[0] - height), (0, shape[1] - width))
    if record.where is None:
        record = record.replace(where=np.ones((height, width), bool))
    return _each(
        record,
        lambda image: np.pad(image, (*margins, (0, 0)), mode=mode),
        lambda pixels: np.pad(pixels, margins),
    ).replace(size=np.array([height, width], np.int32))


def _picture(record: Record) -> np.ndarray:
    """The image, if the record has one and besides it only what can be fitted with it."""
    present = {f.name for f in dataclasses.fields(record) if getattr(record, f.name) is not None}
    if unfit := sorted(present - _FITTED):
        raise ValueError(f"record has {', '.join(unfit)}; only {', '.join(_MAPS)} can be fitted")
    return np.asarray(record.image)


def _each(record: Record, image: Callable, pixels: Callable) -> Record:
    """Applies `image` to the image and `pixels` to every map that the record has."""
    maps = {name: getattr(record, name) for name in _MAPS}
    return record.replace(
        image=image(record.image),
        **{name: pixels(values) for name, values in maps.items() if values is not None},
    )
