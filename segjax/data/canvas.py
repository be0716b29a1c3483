"""Fits examples onto canvases on the host: choice of canvas sizes, scaling, cropping, padding."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from segjax.typing import Instances, Panoptic, Record

_MAPS = ("labels", "where", "edges", "scribbles")
_LABELS = (*_MAPS, "instances", "panoptic")
_FITTED = {"image", *_LABELS, "size", "index", "valid"}
_MOST_SHAPES = 256  # more are rounded further first, as all pairs are compared


def plan_canvases(sizes: np.ndarray, *, most: int = 3, multiple: int = 32) -> np.ndarray:
    """Chooses a few canvases for pictures of many sizes, so that few programs are compiled.

    From one canvas for each size, rounded up to a `multiple`, the two whose union adds the fewest
    pixels over all pictures become one, until no more than `most` are left.

    Args:
      sizes: int `[n, 2]`, (height, width) of every picture in pixels.
      most: largest number of canvases; 0 gives every picture its own size, rounded up.
      multiple: number of pixels that the sides of a canvas are multiples of.

    Returns:
      int `[n, 2]`, (height, width) of each picture's canvas: the smallest that it fits on.

    Example:
      >>> import numpy as np
      >>> from segjax import data
      >>> data.plan_canvases(np.array([[30, 60], [32, 64], [60, 30], [64, 64]]), most=2).tolist()
      [[32, 64], [32, 64], [64, 64], [64, 64]]
    """
    _require("most", most, most >= 0, "at least 0")
    _require("multiple", multiple, multiple >= 1, "at least 1")
    rounded = -(-np.asarray(sizes, np.int64) // multiple) * multiple
    if most == 0:
        return rounded
    shapes, counts = np.unique(rounded, axis=0, return_counts=True)
    while len(shapes) > max(_MOST_SHAPES, most):
        multiple *= 2
        shapes, counts = np.unique(-(-rounded // multiple) * multiple, axis=0, return_counts=True)
    while len(shapes) > most:
        union = np.maximum(shapes[:, None], shapes)
        pixels = shapes.prod(-1) * counts
        added = union.prod(-1) * (counts[:, None] + counts) - pixels[:, None] - pixels
        added[np.tril_indices(len(shapes))] = np.iinfo(np.int64).max
        i, j = np.unravel_index(added.argmin(), added.shape)
        shapes[i] = union[i, j]
        counts[i] += counts[j]
        shapes, counts = np.delete(shapes, j, 0), np.delete(counts, j)
    areas = np.where((rounded[:, None] <= shapes).all(-1), shapes.prod(-1), np.iinfo(np.int64).max)
    return shapes[areas.argmin(-1)]


def rescale(record: Record, scale: float) -> Record:
    """Resizes an example: the image by area averages or bilinearly, labels by the nearest pixel.

    Args:
      record: an example of NumPy arrays, whose labels are maps `[h, w]`, instances or segments.
      scale: output pixels per input pixel, above 0.

    Returns:
      The example with `round(scale * (h, w))` pixels, at least 1 each way; instances and segments
      without a pixel are not valid.

    Raises:
      ValueError: if the record has labels that cannot be resized, such as points.

    Example:
      >>> import numpy as np
      >>> from segjax.data.canvas import rescale
      >>> from segjax.typing import Record
      >>> rescale(Record(image=np.zeros((6, 8, 3), np.uint8)), 0.5).image.shape
      (3, 4, 3)
    """
    if scale == 1.0:
        return record
    before = _picture(record).shape[:2]
    height, width = (max(1, round(side * scale)) for side in before)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def image(pixels):  # OpenCV drops the axis of a single channel
        resized = cv2.resize(pixels, (width, height), interpolation=interpolation)
        return resized.reshape(height, width, -1)

    def nearest(pixels):
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip((height, width), before, strict=True)
        )
        return pixels[..., rows[:, None], columns]

    stretch = np.array([width / before[1], height / before[0]], np.float32)
    if (instances := record.instances) is not None:
        areas = None if instances.areas is None else instances.areas * stretch.prod()
        boxes = instances.boxes * np.tile(stretch, 2)
        record = record.replace(instances=dataclasses.replace(instances, boxes=boxes, areas=areas))
    return _visible(_each(record, image, nearest))


def random_window(record: Record, shape: tuple[int, int], generator: np.random.Generator) -> Record:
    """Crops a random window where the picture is larger than it, and pads where it is smaller.

    Boxes and areas follow from the masks; without masks, boxes are clipped. Objects without a pixel
    in the window become invalid.

    Args:
      record: an example of NumPy arrays, whose labels are maps `[h, w]`, instances or segments.
      shape: (height, width) of the window.
      generator: draws the window's position, uniform over all that lie within the picture.

    Returns:
      The example on a canvas of `shape`, padded as by `pad`.

    Example:
      >>> import numpy as np
      >>> from segjax.data.canvas import random_window
      >>> from segjax.typing import Record
      >>> record = Record(image=np.zeros((6, 3, 3), np.uint8))
      >>> random_window(record, (4, 4), np.random.default_rng(0)).size
      array([4, 3], dtype=int32)
    """
    free = np.maximum(np.subtract(_picture(record).shape[:2], shape), 0)
    top, left = generator.integers(free + 1)
    rows, columns = slice(top, top + shape[0]), slice(left, left + shape[1])
    if (instances := record.instances) is not None:
        boxes = instances.boxes - np.array([left, top, left, top], np.float32)
        record = record.replace(instances=dataclasses.replace(instances, boxes=boxes))
    cut = _each(record, lambda image: image[rows, columns], lambda map_: map_[..., rows, columns])
    return pad(_visible(cut), shape)


def pad(
    record: Record, shape: tuple[int, int], *, mode: Literal["constant", "edge"] = "constant"
) -> Record:
    """Pads an example at the bottom and the right.

    Args:
      record: an example of NumPy arrays, whose labels are maps `[h, w]`, instances or segments.
      shape: (height, width) of the canvas, no smaller than the picture.
      mode: padding of the image: "constant" is black, "edge" repeats the border.

    Returns:
      The example on its canvas. In the padding `where` is False and segments are -1; `size` is the
      size of the picture.

    Example:
      >>> import numpy as np
      >>> from segjax.data.canvas import pad
      >>> from segjax.typing import Record
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
        lambda map_: np.pad(map_, ((0, 0),) * (map_.ndim - 2) + margins),
    ).replace(size=np.array([height, width], np.int32))


def _picture(record: Record) -> np.ndarray:
    """The image; an error where the record has labels that cannot be fitted with it."""
    present = {f.name for f in dataclasses.fields(record) if getattr(record, f.name) is not None}
    if unfit := sorted(present - _FITTED):
        raise ValueError(f"record: expected only {', '.join(_LABELS)}, got {', '.join(unfit)}")
    return np.asarray(record.image)


def _each(record: Record, image: Callable, pixels: Callable) -> Record:
    """Applies `image` to the image and `pixels` to every map `[..., h, w]` that the record has."""
    maps = {name: getattr(record, name) for name in _MAPS}
    instances, panoptic = record.instances, record.panoptic
    if instances is not None and instances.masks is not None:
        instances = dataclasses.replace(instances, masks=pixels(instances.masks))
    if panoptic is not None:  # void is -1; what pads is 0
        panoptic = dataclasses.replace(panoptic, segments=pixels(panoptic.segments + 1) - 1)
    return record.replace(
        image=image(record.image),
        instances=instances,
        panoptic=panoptic,
        **{name: pixels(values) for name, values in maps.items() if values is not None},
    )


def _visible(record: Record) -> Record:
    """Marks instances and segments without a pixel in the picture as invalid."""
    instances, panoptic = record.instances, record.panoptic
    if instances is not None:
        instances = visible_instances(instances, _picture(record).shape[:2])
    if panoptic is not None:
        panoptic = visible_segments(panoptic)
    return record.replace(instances=instances, panoptic=panoptic)


def visible_segments(panoptic: Panoptic) -> Panoptic:
    """Marks the segments of a picture `[h, w]` that have no pixel as invalid."""
    seen = np.isin(np.arange(panoptic.valid.size), panoptic.segments)
    return dataclasses.replace(panoptic, valid=panoptic.valid & seen)


def visible_instances(instances: Instances, shape: tuple[int, ...]) -> Instances:
    """Fits objects to a picture of (height, width) pixels; those without a pixel are invalid."""
    if instances.masks is None:
        boxes = np.clip(instances.boxes, 0, np.array([*shape[::-1], *shape[::-1]], np.float32))
        seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=-1)
        return dataclasses.replace(instances, boxes=boxes, valid=instances.valid & seen)
    masks = np.asarray(instances.masks)
    pixels = np.count_nonzero(masks, axis=(1, 2)).astype(np.float32)
    return dataclasses.replace(
        instances,
        boxes=_boxes(masks),
        valid=instances.valid & (pixels > 0),
        areas=None if instances.areas is None else pixels,
    )


def _boxes(masks: np.ndarray) -> np.ndarray:
    """xyxy around each mask, zeros for an empty one: `ops.masks_to_boxes`, on the host."""
    columns, rows = np.any(masks, axis=1), np.any(masks, axis=2)
    (x0, x1), (y0, y1) = _ends(columns), _ends(rows)
    boxes = np.stack([x0, y0, x1, y1], axis=-1).astype(np.float32)
    return np.where(np.any(rows, axis=1)[:, None], boxes, 0)


def _require(name: str, value: int, condition: bool, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def _ends(taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first True of each row, and one past the last."""
    return taken.argmax(axis=-1), taken.shape[-1] - taken[:, ::-1].argmax(axis=-1)
