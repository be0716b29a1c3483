"""Shared by COCO's instance and panoptic annotations: file layout, categories and images."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from segjax.data.checked import flag, is_integer, is_text, path_within, read_json, repeated, short
from segjax.data.class_list import read_color
from segjax.data.errors import DataError, prefix_errors
from segjax.data.images import (
    MOST_PIXELS,
    check_max_value,
    decode_image,
    is_drawn_upright,
    peek_header,
    pixels,
    read_bytes,
    warn_of_shades,
)
from segjax.data.palette import default_colors
from segjax.data.source import Classes

_LARGEST_ID = 2**31 - 1  # of a category
_MOST_NAMED = 20  # of the problems with one file, of which a wrong folder has one for each image


@dataclasses.dataclass(frozen=True)
class Layout:
    """The paths of a split's files.

    Attributes:
      file: path of the JSON file.
      images: folder of the images.
      maps: folder of the panoptic PNGs.
    """

    file: Path
    images: Path
    maps: Path


def find_layout(path: str | Path, split: str | None, kind: str) -> Layout:
    """Finds `SPLIT/KIND.json`, or `annotations/KIND_SPLIT2017.json` as in COCO's own archives.

    Args:
      path: folder of the data set.
      split: name of the split, for COCO's archives with or without the year; None or "" for none.
      kind: "instances" or "panoptic".

    Returns:
      The paths of the files.

    Raises:
      DataError: if neither exists.

    Example:
      >>> from segjax.data.coco_json import find_layout
      >>> find_layout("no", "val", "instances")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no: expected val/instances.json in it
    """
    root = Path(path).expanduser()
    folder = root / (split or "")
    own = Layout(folder / f"{kind}.json", folder / "images", folder / kind)
    if own.file.exists():
        return own
    for name in (f"{split}2017", f"{split}"):
        file = root / "annotations" / f"{kind}_{name}.json"
        if file.exists():
            beside = root / f"{kind}_{name}"
            return Layout(
                file, root / name, beside if beside.is_dir() else file.parent / beside.name
            )
    there = sorted(str(f.relative_to(root)) for f in root.glob(f"*/{kind}*.json"))
    hint = f", got {', '.join(there)}" if there else ""
    raise DataError(f"{root}: expected {own.file.relative_to(root)} in it{hint}")


@dataclasses.dataclass(frozen=True)
class CocoImage:
    """An image of the list.

    Attributes:
      path: path of its file.
      size: (height, width) in the list, the size that was annotated.
      upright: whether that is the size after turning by the EXIF orientation; set by `checked`.
      deep: whether it has 16 bits a channel; set by `checked`.
      max_value: value that becomes 255 then; None keeps the upper 8 bits.
    """

    path: Path
    size: tuple[int, int]
    upright: bool = False
    deep: bool = False
    max_value: int | None = None

    def checked(self) -> "CocoImage":
        """The image with `upright` and `deep` from the header of its file.

        Raises:
          DataError: if it cannot be read, has another size, or its orientation is ambiguous; it
            names the file.
        """
        with prefix_errors(self.path):
            header = peek_header(self.path)
            upright = is_drawn_upright(header, self.size, where="in the list")
        return dataclasses.replace(self, upright=upright, deep=header.deep)

    def read(self) -> np.ndarray:
        """RGB uint8 `[h, w, 3]`, turned as the annotations were drawn.

        Raises:
          DataError: if it cannot be read or has another size; it names the file.
        """
        with prefix_errors(self.path):
            image = decode_image(
                read_bytes(self.path), upright=self.upright, max_value=self.max_value
            )
            check_size(image.shape[:2], self.size)
        return image


def check_size(stored: tuple[int, ...], listed: tuple[int, int]) -> None:
    """Checks that a file has the size in the list; a DataError if not."""
    if stored != listed:
        raise DataError(f"expected {pixels(listed)}, as in the list, got {pixels(stored)}")


@dataclasses.dataclass(frozen=True)
class CocoJson:
    """A file of annotations.

    Attributes:
      classes: the categories in the order of their ids.
      class_of: the class of each category id.
      images: by id, in the order of the file.
      annotations: the annotations as in the file.
    """

    classes: Classes
    class_of: dict[int, int]
    images: dict[int, CocoImage]
    annotations: list[Any]

    def category(self, entry: dict) -> int:
        """The class of an annotation or segment."""
        category = entry.get("category_id")
        if type(category) is not int or category not in self.class_of:
            raise DataError(f"category_id: expected one of the categories, got {short(category)}")
        return self.class_of[category]

    def size(self, entry: dict) -> tuple[int, int]:
        """The (height, width) of an annotation's image."""
        image = entry.get("image_id")
        if type(image) is not int or image not in self.images:
            raise DataError(f"image_id: expected one of the images, got {short(image)}")
        return self.images[image].size


def read_coco_json(
    layout: Layout,
    *,
    max_value: int | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> CocoJson:
    """Reads categories, images and annotations, and checks all but the annotations.

    Args:
      layout: paths of the files.
      max_value: value that becomes 255 in 16-bit images; None keeps the upper 8 bits.
      progress: function that passes on the sequence of what is checked, and may show the progress.

    Returns:
      The content of the file.

    Raises:
      DataError: if the file is malformed, or an image is missing, unreadable or of another size;
        it names the file and each image.

    Example:
      >>> from pathlib import Path
      >>> from segjax.data.coco_json import Layout
      >>> from segjax.data.coco_json import read_coco_json
      >>> read_coco_json(Layout(Path("a.json"), Path("images"), Path("panoptic")))
      Traceback (most recent call last):
      segjax.data.errors.DataError: a.json: No such file or directory
    """
    check_max_value(max_value)
    with prefix_errors(layout.file):
        match read_json(layout.file):
            case {"images": list(images), "annotations": list(entries), "categories": list(listed)}:
                classes, class_of = _categories(listed)
            case _:
                raise DataError('expected {"images": [...], "annotations": [...], ...}')
        by_id = _images(layout.images, images)
    problems = []
    with ThreadPoolExecutor() as threads:
        checks = {name: threads.submit(image.checked) for name, image in by_id.items()}
        for name, check in zip(checks, progress(list(checks.values())), strict=True):
            try:
                by_id[name] = dataclasses.replace(check.result(), max_value=max_value)
            except DataError as error:
                problems.append(str(error))
    raise_all(layout.file, problems)
    deep = next((image.path for image in by_id.values() if image.deep), None)
    if deep and max_value is None:
        warn_of_shades(deep)
    return CocoJson(classes, class_of, by_id, entries)


def read_image_list(file: Path, folder: Path) -> dict[int, CocoImage]:
    """Reads the list of images in a JSON file, without checking the images.

    Args:
      file: path of the JSON file.
      folder: folder of the images.

    Returns:
      The images by id, in the order of the file.

    Raises:
      DataError: if the file is malformed; it names the file.

    Example:
      >>> from pathlib import Path
      >>> from segjax.data.coco_json import read_image_list
      >>> read_image_list(Path("a.json"), Path("images"))
      Traceback (most recent call last):
      segjax.data.errors.DataError: a.json: No such file or directory
    """
    with prefix_errors(file):
        match read_json(file):
            case {"images": list(images)}:
                return _images(folder, images)
        raise DataError('expected {"images": [...], ...}')


def each_checked(file: Path, entries: Iterable[Any], check: Callable) -> Iterator[Any]:
    """Applies `check` to each annotation, and raises all DataErrors together at the end.

    Args:
      file: path of the file with the annotations, for errors.
      entries: the annotations.
      check: function of an annotation.

    Yields:
      The results of `check`.

    Raises:
      DataError: if `check` raised any; it names the file and the annotations by id.

    Example:
      >>> from pathlib import Path
      >>> from segjax.data.coco_json import each_checked
      >>> list(each_checked(Path("a.json"), [{"id": 1}], lambda entry: entry["id"]))
      [1]
    """
    problems = []
    for place, entry in enumerate(entries):
        named = isinstance(entry, dict) and "id" in entry
        name = f"annotation {short(entry['id'])}" if named else f"annotations[{place}]"
        try:
            if not isinstance(entry, dict):
                raise DataError(f"expected {{...}}, got {short(entry)}")
            yield check(entry)
        except DataError as error:
            problems.append(f"{name}: {error}")
    raise_all(file, problems)


def raise_all(what: Path, problems: list[str]) -> None:
    """Raises a DataError that lists the problems, or the first of many; nothing without any."""
    if not problems:
        return
    more = len(problems) - _MOST_NAMED
    rest = [f"and {more} more"] if more > 0 else []
    raise DataError("\n  ".join([f"{what}: cannot be used:", *problems[:_MOST_NAMED], *rest]))


def _categories(listed: list[Any]) -> tuple[Classes, dict[int, int]]:
    colors = dict(enumerate(default_colors(len(listed))))
    for entry in listed:
        match entry:
            case {"id": number, "name": name} if is_integer(number, 0, _LARGEST_ID):
                if is_text(name):
                    continue
        raise DataError(f'categories: expected {{"id", "name"}}, got {short(entry)}')
    ordered = sorted(listed, key=lambda entry: entry["id"])
    ids = tuple(entry["id"] for entry in ordered)
    if (number := repeated(ids)) is not None:
        raise DataError(f"categories: expected ids that differ, got several {number}")
    for place, entry in enumerate(ordered):
        if "color" in entry:
            colors[place] = read_color(entry["name"], entry["color"])
    classes = Classes(
        tuple(entry["name"] for entry in ordered),
        tuple(colors.values()),
        tuple(flag(entry, "isthing", default=True) for entry in ordered),
        ids,
    )
    return classes, {number: class_ for class_, number in enumerate(ids)}


def _images(folder: Path, listed: list[Any]) -> dict[int, CocoImage]:
    if not listed:
        raise DataError("images: expected at least one, got none")
    by_id = {}
    for place, entry in enumerate(listed):
        match entry:
            case {"id": number, "file_name": str(file), "height": height, "width": width} if (
                type(number) is int
                and is_integer(height, 1, MOST_PIXELS)
                and is_integer(width, 1, MOST_PIXELS)
            ):
                pass
            case _:
                raise DataError(
                    f'images[{place}]: expected {{"id", "file_name", "height", "width"}}, got '
                    f"{short(entry)}"
                )
        if number in by_id:
            raise DataError(f"images: expected ids that differ, got several {short(number)}")
        with prefix_errors(f"images[{place}]"):
            by_id[number] = CocoImage(path_within(folder, file), (height, width))
    return by_id
