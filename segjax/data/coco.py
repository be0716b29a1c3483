"""Instances annotated in COCO's format as a source."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segjax.data.coco_json import CocoImage, CocoJson, each_checked, find_layout, read_coco_json
from segjax.data.errors import DataError
from segjax.data.polygons import rasterize_polygons
from segjax.data.rle import decode_rle, run_lengths
from segjax.data.source import Source
from segjax.typing import Instances, Record

_FARTHEST = 2**16  # outlines are followed point by point


class Coco(Source):
    """Images and their objects: polygons or run-length codes, also of crowds, in one JSON.

    ```
    PATH/SPLIT/instances.json    in COCO's own archives: PATH/annotations/instances_SPLIT2017.json
    PATH/SPLIT/images/                                   PATH/SPLIT2017/
    ```

    Classes are the categories, numbered from 0 on in the order of their ids. Boxes and areas are
    the annotations' own; masks may share pixels, and are pixel for pixel those of COCO's code.

    Opening checks the JSON and the header of every image. Objects whose box has no area inside the
    image are left out with a warning that names them.

    Args:
      path: of the folder.
      split: of it; None or "" where the JSON stands directly in `path`.
      max_instances: rows of the tables; of fuller images the largest objects are kept, crowds
        last. None: as many as the fullest image of the split has.
      progress: passes on what is checked, one at a time, and may show how far that is.

    Raises:
      DataError: something is missing or unusable; names the files, and each annotation by its id.

    Example:
      >>> Coco("no/such/folder")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no/such/folder: has no train/instances.json
    """

    channels = 3

    def __init__(
        self,
        path: str | Path,
        split: str | None = "train",
        *,
        max_instances: int | None = None,
        progress: Callable[[Sequence], Iterable] = iter,
    ):
        if max_instances is not None and max_instances < 0:
            raise ValueError(f"max_instances must be at least 0 or None, got {max_instances}")
        layout = find_layout(path, split, "instances")
        content = read_coco_json(layout, progress=progress)
        self.classes = content.classes
        self._images = list(content.images.values())
        objects: dict[int, list[_Object]] = {image: [] for image in content.images}
        unseen = []
        for name, image, found in each_checked(
            layout.file, progress(content.annotations), lambda entry: _object(content, entry)
        ):
            if found.is_seen(content.images[image].size):
                objects[image].append(found)
            else:
                unseen.append(str(name))
        if unseen:
            warnings.warn(
                f"{layout.file}: without area inside the image, and left out: annotation "
                f"{', '.join(unseen[:20])}{' ...' if len(unseen) > 20 else ''}",
                stacklevel=2,
            )
        fullest = max(map(len, objects.values()), default=0)
        self.max_instances = fullest if max_instances is None else max_instances
        self._objects = [_largest(group, self.max_instances) for group in objects.values()]
        self.sizes = np.array([image.size for image in self._images], np.int32).reshape(-1, 2)

    def read(self, index: int) -> Record:
        """Example `index`: `image` in uint8 RGB, `instances` with masks, and `size`."""
        image: CocoImage = self._images[index]
        return Record(
            image=image.read(),
            size=self.sizes[index],
            instances=_instances(self._objects[index], image.size, self.max_instances),
        )


@dataclasses.dataclass(frozen=True)
class _Object:
    """An annotation. Its shape is run lengths, or the points of polygons."""

    class_: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    shape: np.ndarray | list[np.ndarray]

    def is_seen(self, size: tuple[int, int]) -> bool:
        """Whether the box has area inside an image of (height, width)."""
        x0, y0, x1, y1 = self.box
        return min(x1, size[1]) > max(x0, 0) and min(y1, size[0]) > max(y0, 0)

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        if isinstance(self.shape, np.ndarray):
            return decode_rle(self.shape, size)
        return rasterize_polygons(self.shape, size)


def _object(content: CocoJson, entry: dict[str, Any]) -> tuple[Any, int, _Object]:
    """An annotation's id, its image, and its object."""
    size, class_ = content.size(entry), content.category(entry)
    box = _numbers("bbox", entry.get("bbox"))
    if len(box) != 4 or min(box[2:]) < 0:
        raise DataError(f"bbox is {entry['bbox']!r}; due is [x, y, width, height]")
    (area,) = _numbers("area", [entry.get("area")])
    x, y, width, height = box.tolist()
    return (
        entry.get("id"),
        entry["image_id"],
        _Object(
            class_,
            (x, y, x + width, y + height),
            float(area),
            bool(entry.get("iscrowd", 0)),
            _shape(entry.get("segmentation"), size),
        ),
    )


def _shape(segmentation: Any, size: tuple[int, int]) -> np.ndarray | list[np.ndarray]:
    match segmentation:
        case {"size": [int(height), int(width)], "counts": str() | list()}:
            if (height, width) != size:
                raise DataError(
                    f"segmentation has the size {height} x {width} (height x width), "
                    f"its image {size[0]} x {size[1]}"
                )
            return run_lengths(segmentation["counts"], size)
        case [_, *_]:
            polygons = [_numbers("segmentation", polygon) for polygon in segmentation]
            if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
                raise DataError("segmentation has a polygon that is not x0, y0, x1, y1, x2, y2 ...")
            if any(np.abs(polygon).max() > _FARTHEST for polygon in polygons):
                raise DataError(f"segmentation has a point more than {_FARTHEST} pixels away")
            return polygons
    raise DataError(
        f'segmentation is neither polygons nor {{"size", "counts"}}: {str(segmentation)[:60]}'
    )


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise DataError(f"{name} is not a list of numbers: {str(values)[:60]}")
    return numbers


def _largest(objects: list[_Object], most: int) -> list[_Object]:
    """Crowds last, the largest first; those that are kept stay in their order."""
    kept = sorted(range(len(objects)), key=lambda i: (objects[i].crowd, -objects[i].area))[:most]
    return [objects[i] for i in sorted(kept)]


def _instances(objects: list[_Object], size: tuple[int, int], rows: int) -> Instances:
    """The table of the objects, padded to `rows`."""
    boxes, masks = np.zeros((rows, 4), np.float32), np.zeros((rows, *size), bool)
    for row, each in enumerate(objects):
        boxes[row], masks[row] = each.box, each.mask(size)
    padding = (0, rows - len(objects))
    return Instances(
        boxes=boxes,
        classes=np.pad(np.array([each.class_ for each in objects], np.int32), padding),
        valid=np.arange(rows) < len(objects),
        masks=masks,
        crowd=np.pad(np.array([each.crowd for each in objects], bool), padding),
        areas=np.pad(np.array([each.area for each in objects], np.float32), padding),
    )
