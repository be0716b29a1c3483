"""Data sets with instances in COCO's format."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segjax.data.checked import flag, is_integer, numbers, short
from segjax.data.coco_json import (
    CocoImage,
    CocoJson,
    each_checked,
    find_layout,
    raise_all,
    read_coco_json,
)
from segjax.data.errors import DataError
from segjax.data.polygons import check_polygon, rasterize_polygons
from segjax.data.rle import decode_rle, run_lengths
from segjax.data.source import Source
from segjax.typing import Instances, Record

_FARTHEST = 2**24  # of a box's numbers from 0, in pixels: float32 holds all integers up to it
_LARGEST_AREA = 2**53
_MOST_NAMED = 20


class Coco(Source):
    """COCO instances: images and their objects, as polygons or run-length codes, in one JSON file.

    ```
    PATH/SPLIT/instances.json    in COCO's own archives: PATH/annotations/instances_SPLIT2017.json
    PATH/SPLIT/images/                                   PATH/SPLIT2017/
    ```

    Classes are the categories, numbered from 0 on in the order of their ids, which are kept in
    `classes.ids`. Boxes and areas are taken from the annotations; a missing area is the number of
    the mask's pixels. Masks may overlap, and are pixel for pixel those of pycocotools.

    An image with an EXIF orientation is turned upright if it then has the size in the list, and
    left as it is stored if that has. If both have, it is unknown which of the two was annotated,
    and that is an error.

    Images may have up to 178,956,970 pixels, and every file lies within the folder. Opening checks
    the JSON and the header of every image. One warning lists annotations that are left out: those
    whose box has no area inside the image, and those without a mask (no `segmentation`, an empty
    one, or polygons of less than three points). It also lists those whose `segmentation` is a
    single polygon without a list around it, which is read.

    Args:
      path: folder of the data set.
      split: name of the split; None or "" where the JSON lies directly in `path`.
      max_instances: number of rows in the tables; of images with more objects the largest are kept,
        crowds last. None takes the largest number of objects in an image of the split.
      strict: whether what the warning would list is an error instead; it always is where no object
        is left.
      max_value: value that becomes 255 in 16-bit images, such as 4095 for 12-bit content; None
        keeps the upper 8 bits, with a warning where those of the first such image are few shades.
      progress: function that passes on the sequence of what is checked, and may show the progress.

    Raises:
      DataError: if anything is missing or unusable; it names the files, and annotations by id.

    Example:
      >>> from segjax import data
      >>> data.Coco("no/such/folder")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no/such/folder: expected train/instances.json in it
    """

    channels = 3

    def __init__(
        self,
        path: str | Path,
        split: str | None = "train",
        *,
        max_instances: int | None = None,
        strict: bool = False,
        max_value: int | None = None,
        progress: Callable[[Sequence], Iterable] = iter,
    ):
        if max_instances is not None and max_instances < 0:
            raise ValueError(f"max_instances: expected at least 0 or None, got {max_instances}")
        layout = find_layout(path, split, "instances")
        content = read_coco_json(layout, max_value=max_value, progress=progress)
        self.classes = content.classes
        self._images = list(content.images.values())
        objects: dict[int, list[_Object]] = {image: [] for image in content.images}
        flaws: dict[str, list[str]] = {}
        for name, image, found, flaw in each_checked(
            layout.file, progress(content.annotations), lambda entry: _object(content, entry)
        ):
            if found is not None:
                objects[image].append(found)
            if flaw:
                flaws.setdefault(flaw, []).append(short(name))
        if strict or (content.annotations and not any(objects.values())):
            raise_all(layout.file, [f"annotation {k}: {why}" for why in flaws for k in flaws[why]])
        if flaws:
            warnings.warn(
                f"{layout.file}: {_summary(flaws, len(content.annotations))}", stacklevel=2
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
    """An annotation; `shape` holds run lengths, or the points of polygons."""

    class_: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    shape: np.ndarray | list[np.ndarray]

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        if isinstance(self.shape, np.ndarray):
            return decode_rle(self.shape, size)
        return rasterize_polygons(self.shape, size)

    def count_pixels(self, size: tuple[int, int]) -> int:
        """The mask's area; no pixel outside the box of its polygons is looked at."""
        if isinstance(self.shape, np.ndarray):
            return int(self.shape[1::2].sum())
        points = np.concatenate(self.shape).reshape(-1, 2)
        left, top = np.maximum(points.min(0), 0).astype(int)
        right, bottom = np.maximum(np.ceil(points.max(0)) + 1, 0).astype(int)
        return int(np.count_nonzero(self.mask(size)[top:bottom, left:right]))


def _object(content: CocoJson, entry: dict[str, Any]) -> tuple[Any, int, _Object | None, str]:
    """An annotation's id, image, object, and what is wrong with it if anything."""
    size, class_ = content.size(entry), content.category(entry)
    crowd = flag(entry, "iscrowd", default=False)
    shape, flaw = _shape(entry.get("segmentation"), size)
    x, y, width, height = _box(entry.get("bbox"))
    box = (x, y, x + width, y + height)
    found = None
    if shape is None:
        flaw = "left out, without a mask"
    elif not (min(box[2], size[1]) > max(x, 0) and min(box[3], size[0]) > max(y, 0)):
        flaw = "left out, without area inside the image"
    elif entry.get("area") is not None:
        (area,) = numbers("area", [entry["area"]], most=_LARGEST_AREA)
        found = _Object(class_, box, float(area), crowd, shape)
    else:
        drawn = _Object(class_, box, 0.0, crowd, shape)
        found = dataclasses.replace(drawn, area=float(drawn.count_pixels(size)))
    return entry.get("id"), entry["image_id"], found, flaw


def _summary(flaws: dict[str, list[str]], count: int) -> str:
    """The number of annotations with each flaw, and the ids of the first of them."""
    counted = (
        f"{len(ids)} of {count} annotations {why}: {', '.join(ids[:_MOST_NAMED])}"
        f"{' ...' if len(ids) > _MOST_NAMED else ''}"
        for why, ids in flaws.items()
    )
    return "; ".join(counted)


def _box(bbox: Any) -> list[float]:
    box = numbers("bbox", bbox, most=_FARTHEST)
    if len(box) != 4 or min(box[2:]) < 0:
        raise DataError(f"bbox: expected [x, y, width, height], got {short(bbox)}")
    return box.tolist()


def _shape(
    segmentation: Any, size: tuple[int, int]
) -> tuple[np.ndarray | list[np.ndarray] | None, str]:
    """Run lengths or the points of polygons, None without a mask; and a flaw, or ""."""
    flaw = ""
    match segmentation:
        case {"size": [height, width], "counts": str() | list() as counts}:
            if not (is_integer(height, size[0], size[0]) and is_integer(width, size[1], size[1])):
                raise DataError(
                    f"segmentation: expected the image's size {size[0]} x {size[1]} (height x "
                    f"width), got {short(height)} x {short(width)}"
                )
            return run_lengths(counts, size), flaw
        case None | []:
            return None, flaw
        case [int() | float(), *_]:
            segmentation, flaw = [segmentation], "read as one polygon, no list of polygons"
        case [_, *_]:
            pass
        case _:
            raise DataError(
                'segmentation: expected polygons or {"size", "counts"}, got ' + short(segmentation)
            )
    polygons = [check_polygon(polygon) for polygon in segmentation]
    areas = [polygon for polygon in polygons if len(polygon) >= 6]
    if areas and len(areas) < len(polygons):
        flaw = "drawn without its polygons of less than three points"
    return areas or None, flaw


def _largest(objects: list[_Object], most: int) -> list[_Object]:
    """Keeps the largest objects, crowds last, in their order."""
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
