"""Data sets of images and masks in folders."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segjax.data.class_list import instance_classes, read_classes
from segjax.data.errors import DataError, prefix_errors
from segjax.data.images import (
    check_max_value,
    decode_image,
    decode_mask,
    image_header,
    is_drawn_upright,
    pixels,
    read_bytes,
    warn_of_shades,
)
from segjax.data.source import Source
from segjax.suggestions import unknown_name
from segjax.typing import Panoptic, Record


class Folder(Source):
    """A folder of images and their masks.

    ```
    PATH/classes.json            {"classes": [{"id": 0, "name": "sky", "color": [128, 128, 128]},
                                  ...], "ignore_index": 11}, or just a list of names
    PATH/SPLIT/images/NAME.jpg   any format that OpenCV decodes
    PATH/SPLIT/masks/NAME.png    class ids in one channel of 8 or 16 bits, or the classes' colours
    ```

    Instead of `masks/` there may be `instances/`: PNGs in which 0 is background and every other
    value an object. Their labels are background and object, and segment 0 of their `panoptic` is
    the background, followed by the objects in the order of their values; the table has as many rows
    as the split's fullest image needs. No `classes.json` is needed; the object's name is that of
    the category in `PATH/SPLIT/instances.json` if there is a single one.

    Classes are numbered from 0 on in the order of their ids. Void is `ignore_index`, or `void` if
    given, and in masks also 255 unless a class has that id.

    An image with an EXIF orientation is turned upright if it then has the size of its mask, and
    left as it is stored if that has. If both have, it is unknown which of the two was annotated,
    and that is an error.

    Images may have up to 178,956,970 pixels. Opening checks every file: the headers of the images,
    and every value of the masks.

    Args:
      path: folder of the data set.
      split: name of the sub-folder; None where `images/` lies directly in `path`.
      void: mask value that is void, 0..65535, instead of `ignore_index`.
      max_value: value that becomes 255 in 16-bit images, such as 4095 for 12-bit content; None
        keeps the upper 8 bits, with a warning where those of the first such image are few shades.
      progress: function that passes on the sequence of what is checked, and may show the progress.

    Raises:
      DataError: if anything is missing or unusable; it names all such files at once.

    Example:
      >>> from segjax import data
      >>> data.Folder("no/such/folder")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no/such/folder: No such folder
    """

    channels = 3

    def __init__(
        self,
        path: str | Path,
        split: str | None = "train",
        *,
        void: int | None = None,
        max_value: int | None = None,
        progress: Callable[[Sequence], Iterable] = iter,
    ):
        if void is not None and not 0 <= void <= 65535:
            raise ValueError(f"void: expected 0..65535 or None, got {void}")
        check_max_value(max_value)
        self._max_value = max_value
        root = Path(path).expanduser()
        folder = find_split(root, split)
        masks = folder / "masks"
        self._has_objects = not masks.is_dir()
        if not self._has_objects:
            self.classes, self._code = read_classes(root / "classes.json", void=void)
        elif (masks := folder / "instances").is_dir():
            self.classes, self._code = instance_classes(folder / "instances.json", void=void)
        else:
            raise DataError(f"{folder}: expected a masks or an instances folder in it, got neither")

        pairs, problems = _pair(folder / "images", masks)
        self._examples = []
        with ThreadPoolExecutor() as threads:
            for inspection in progress([threads.submit(self._inspect, *pair) for pair in pairs]):
                try:
                    self._examples.append(inspection.result())
                except DataError as error:
                    problems.append(str(error))
        if problems:
            raise DataError("\n  ".join([f"{folder}: cannot be used:", *problems]))
        if not pairs:
            raise DataError(f"{folder / 'images'}: expected images in it, got none")
        deep = next((example.image for example in self._examples if example.deep), None)
        if deep and max_value is None:
            warn_of_shades(deep)
        self.sizes = np.array([example.size for example in self._examples], np.int32)
        self._most_objects = max(example.objects for example in self._examples)

    def read(self, index: int) -> Record:
        """Example `index`: `image` in uint8 RGB, `labels`, `where`, `size`; `panoptic` if any."""
        example = self._examples[index]
        mask, labels, where = self._decode(example.mask)
        panoptic = None
        if self._has_objects:
            with prefix_errors(example.mask):
                panoptic = _segments(mask, where, self._most_objects)
        with prefix_errors(example.image):
            image = decode_image(
                read_bytes(example.image), upright=example.upright, max_value=self._max_value
            )
            if image.shape[:2] != labels.shape:
                raise DataError(
                    f"expected the mask's {pixels(labels.shape)}, got {pixels(image.shape)}"
                )
        return Record(
            image=image, labels=labels, where=where, size=self.sizes[index], panoptic=panoptic
        )

    def _decode(self, mask: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The values of a mask, their labels, and where they are not void."""
        with prefix_errors(mask):
            values = decode_mask(read_bytes(mask))
            return values, *self._code(values)

    def _inspect(self, image: Path, mask: Path) -> "_Example":
        """Decodes the mask and compares its size with the image's header."""
        values, labels, where = self._decode(mask)
        with prefix_errors(image):
            header = image_header(read_bytes(image))
            upright = is_drawn_upright(header, labels.shape, where="its mask")
        objects = len(_objects(values, where)) if self._has_objects else 0
        return _Example(image, mask, labels.shape, objects, upright, header.deep)


@dataclasses.dataclass(frozen=True)
class _Example:
    image: Path
    mask: Path
    size: tuple[int, ...]
    objects: int
    upright: bool
    deep: bool


def _objects(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The objects' values in a map, ascending."""
    return np.flatnonzero(np.bincount(values[where & (values > 0)]))


def _segments(values: np.ndarray, where: np.ndarray, most_objects: int) -> Panoptic:
    """Background and objects of an instance map, in a table for `most_objects`."""
    objects = _objects(values, where)
    if len(objects) > most_objects:
        raise DataError(
            f"expected {most_objects} objects at most, as when opened, got {len(objects)}"
        )
    rows = np.arange(1 + most_objects)
    row_of = np.zeros(int(values.max(initial=0)) + 1, np.int32)
    row_of[objects] = rows[1 : 1 + len(objects)]
    segments = np.where(where, row_of[values], -1).astype(np.int32)
    valid = rows <= len(objects)
    valid[0] = (segments == 0).any()
    return Panoptic(segments, classes=(rows > 0).astype(np.int32), valid=valid)


def find_split(root: Path, split: str | None) -> Path:
    """Finds the folder of a split, which holds `images/`.

    Args:
      root: folder of the data set.
      split: name of the split; None or "" for no split.

    Returns:
      The folder.

    Raises:
      DataError: if there is no such folder; it names the existing splits.
    """
    if not root.is_dir():
        raise DataError(f"{root}: No such folder")
    folder = root / (split or "")
    if (folder / "images").is_dir():
        return folder
    splits = [child.name for child in root.iterdir() if (child / "images").is_dir()]
    if split and not folder.is_dir():
        raise DataError(f"{root}: {unknown_name('split', split, splits)}")
    hint = f"; it has the splits {', '.join(sorted(splits))}" if splits else ""
    raise DataError(f"{folder}: expected an images folder in it{hint}")


def _pair(images: Path, masks: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Pairs images and masks of the same name, in the order of names; and lists those left over."""
    image_files, mask_files = _by_stem(images), _by_stem(masks)
    pairs, problems = [], []
    for stem in sorted(image_files.keys() | mask_files.keys()):
        match image_files[stem], mask_files[stem]:
            case [image], [mask]:
                pairs.append((image, mask))
            case [image], []:
                problems.append(f"{image}: expected a mask {masks.name}/{stem}.png, got none")
            case [], [mask]:
                problems.append(f"{mask}: expected an image {images.name}/{stem}.*, got none")
            case several:
                names = ", ".join(str(file) for file in itertools.chain(*several))
                problems.append(f"{names}: expected names that differ")
    return pairs, problems


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    files = collections.defaultdict(list)
    for file in sorted(folder.iterdir()):
        if not file.name.startswith("."):
            files[file.stem].append(file)
    return files
