"""Data sets with panoptic segments in COCO's format."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segjax.data.checked import flag, is_integer, path_within, repeated, short
from segjax.data.coco_json import (
    CocoImage,
    CocoJson,
    check_size,
    each_checked,
    find_layout,
    raise_all,
    read_coco_json,
)
from segjax.data.errors import DataError, prefix_errors
from segjax.data.images import decode_mask, read_bytes
from segjax.data.source import Source
from segjax.typing import Panoptic, Record


class CocoPanoptic(Source):
    """COCO panoptic: images, PNGs whose colours are segment ids, and a JSON file that lists these.

    ```
    PATH/SPLIT/panoptic.json     in COCO's own archives: PATH/annotations/panoptic_SPLIT2017.json
    PATH/SPLIT/panoptic/                                 PATH/panoptic_SPLIT2017/
    PATH/SPLIT/images/                                   PATH/SPLIT2017/
    ```

    The id of a pixel is `red + 256 green + 65536 blue`, 0 is void. Classes are the categories,
    numbered from 0 on in the order of their ids, which are kept in `classes.ids`; `isthing` says
    which are things. Segments come in the order of the JSON; those without a pixel are not valid.
    EXIF orientations are handled as by `Coco`.

    Opening checks the JSON and the header of every image; reading checks the ids of the PNG.

    Args:
      path: folder of the data set.
      split: name of the split; None or "" where the JSON lies directly in `path`.
      max_segments: number of rows in the tables; of images with more segments the largest are kept
        and the rest are void in `panoptic`, not in `labels`. None takes the largest number of
        segments in an image of the split.
      max_value: value that becomes 255 in 16-bit images, such as 4095 for 12-bit content; None
        keeps the upper 8 bits, with a warning where those of the first such image are few shades.
      progress: function that passes on the sequence of what is checked, and may show the progress.

    Raises:
      DataError: if anything is missing or unusable; it names the files and the segments.

    Example:
      >>> from segjax import data
      >>> data.CocoPanoptic("no/such/folder")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no/such/folder: expected train/panoptic.json in it
    """

    channels = 3

    def __init__(
        self,
        path: str | Path,
        split: str | None = "train",
        *,
        max_segments: int | None = None,
        max_value: int | None = None,
        progress: Callable[[Sequence], Iterable] = iter,
    ):
        if max_segments is not None and max_segments < 0:
            raise ValueError(f"max_segments: expected at least 0 or None, got {max_segments}")
        layout = find_layout(path, split, "panoptic")
        content = read_coco_json(layout, max_value=max_value, progress=progress)
        self.classes = content.classes
        found = dict(
            each_checked(
                layout.file,
                progress(content.annotations),
                lambda entry: _example(content, layout.maps, entry),
            )
        )
        missing = content.images.keys() - found.keys()
        raise_all(
            layout.file,
            [f"image {name}: expected an annotation, got none" for name in sorted(missing)],
        )
        self._examples = [found[name] for name in content.images]
        fullest = max((len(example.ids) for example in self._examples), default=0)
        self.max_segments = fullest if max_segments is None else max_segments
        sizes = [example.image.size for example in self._examples]
        self.sizes = np.array(sizes, np.int32).reshape(-1, 2)

    def read(self, index: int) -> Record:
        """Example `index`: `image` in uint8 RGB, `panoptic`, `labels`, `where` and `size`."""
        example = self._examples[index]
        with prefix_errors(example.map_):
            segments = _segments(decode_mask(read_bytes(example.map_)), example)
        where = segments >= 0
        of_void = [0]  # the last, which -1 picks
        return Record(
            image=example.image.read(),
            labels=np.append(example.classes, of_void).astype(np.int32)[segments],
            where=where,
            size=self.sizes[index],
            panoptic=_table(segments, example, self.max_segments),
        )


@dataclasses.dataclass(frozen=True)
class _Example:
    """An image and its segments: their ids in the PNG, their classes, and which are crowds."""

    image: CocoImage
    map_: Path
    ids: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


def _example(content: CocoJson, maps: Path, entry: dict[str, Any]) -> tuple[int, _Example]:
    content.size(entry)
    match entry:
        case {"file_name": str(file), "segments_info": list(listed)}:
            map_ = path_within(maps, file)
        case _:
            raise DataError('expected {"image_id", "file_name", "segments_info"}')
    if not map_.is_file():
        raise DataError(f"{map_}: No such file or directory")
    for segment in listed:
        if not isinstance(segment, dict) or not is_integer(segment.get("id"), 1, 2**24 - 1):
            raise DataError(f"segments_info: expected ids in 1..2^24 - 1, got {short(segment)}")
    ids = [segment["id"] for segment in listed]
    if (number := repeated(ids)) is not None:
        raise DataError(f"segments_info: expected ids that differ, got several {number}")
    classes, crowd = [], []
    for segment in listed:
        with prefix_errors(f"segment {segment['id']}"):
            classes.append(content.category(segment))
            crowd.append(flag(segment, "iscrowd", default=False))
    return entry["image_id"], _Example(
        content.images[entry["image_id"]],
        map_,
        np.array(ids, np.int32),
        np.array(classes, np.int32),
        np.array(crowd, bool),
    )


def _segments(rgb: np.ndarray, example: _Example) -> np.ndarray:
    """The row of each pixel's segment; -1 is void."""
    if rgb.ndim != 3:
        raise DataError("expected a PNG with the channels red, green and blue, got one channel")
    check_size(rgb.shape[:2], example.image.size)
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    pixels = red + 256 * green + 65536 * blue
    ids = np.append(example.ids, 0)
    rows = np.append(np.arange(len(example.ids)), -1).astype(np.int32)
    order = np.argsort(ids)
    place = np.searchsorted(ids[order], pixels).clip(max=len(ids) - 1)
    unknown = ids[order][place] != pixels
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise DataError(
            f"expected ids of its annotation's segments, got {pixels[row, column]} at row {row}, "
            f"column {column}"
        )
    return rows[order][place]


def _table(segments: np.ndarray, example: _Example, rows: int) -> Panoptic:
    """A table of the segments padded to `rows`; the largest of them if there are more."""
    areas = np.bincount(segments[segments >= 0], minlength=len(example.ids))
    kept = np.sort(np.argsort(-areas, kind="stable")[:rows])
    row_of = np.full(len(example.ids) + 1, -1, np.int32)  # the last is void's
    row_of[kept] = np.arange(len(kept))
    padding = (0, rows - len(kept))
    return Panoptic(
        row_of[segments],
        np.pad(example.classes[kept], padding),
        np.pad(areas[kept] > 0, padding),
        np.pad(example.crowd[kept], padding),
    )
