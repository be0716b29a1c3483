"""What COCO's kinds of annotation share: the files' places, the categories, the images."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from segjax.data.checked import flag, is_integer, is_text, path_within, read_json, repeated, short
from segjax.data.class_list import read_color
from segjax.data.errors import DataError, naming
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
_MOST_NAMED = 20  # of the problems with one file: a wrong folder has one for each image


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the files of a split lie.

    Attributes:
      file: the JSON.
      images: the folder of the images.
      maps: the folder of the panoptic PNGs.
    """

    file: Path
    images: Path
    maps: Path


def find_layout(path: str | Path, split: str | None, kind: str) -> Layout:
    """Finds `SPLIT/KIND.json`, or `annotations/KIND_SPLIT2017.json` as COCO's own archives have it.

    Args:
      path: of the folder.
      split: of the data set, in COCO's own with or without the year; None or "" for none.
      kind: "instances" or "panoptic".

    Returns:
      The places of the files.

    Raises:
      DataError: neither is there.

    Example:
      >>> find_layout("no", "val", "instances")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no: has no val/instances.json
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
    hint = f" (but {', '.join(there)})" if there else ""
    raise DataError(f"{root}: has no {own.file.relative_to(root)}{hint}")


@dataclasses.dataclass(frozen=True)
class CocoImage:
    """An image of the list.

    Attributes:
      path: of its file.
      size: (height, width) that the list gives, on which the annotations were drawn.
      upright: whether that is the image as its EXIF orientation turns it; `checked` knows.
      deep: whether it has 16 bits a channel; `checked` knows.
      max_value: what becomes 255 then; None keeps the upper 8 bits.
    """

    path: Path
    size: tuple[int, int]
    upright: bool = False
    deep: bool = False
    max_value: int | None = None

    def checked(self) -> "CocoImage":
        """The image with `upright` and `deep` as its file's header tells.

        Raises:
          DataError: it cannot be read, has another size, or nothing tells whether it was turned;
            names the file.
        """
        with naming(self.path):
            header = peek_header(self.path)
            upright = is_drawn_upright(header, self.size, where="in the list")
        return dataclasses.replace(self, upright=upright, deep=header.deep)

    def read(self) -> np.ndarray:
        """RGB uint8 `[h, w, 3]`, turned as the annotations were drawn.

        Raises:
          DataError: it cannot be read, or has another size; names the file.
        """
        with naming(self.path):
            image = decode_image(
                read_bytes(self.path), upright=self.upright, max_value=self.max_value
            )
            check_size(image.shape[:2], self.size)
        return image


def check_size(stored: tuple[int, ...], listed: tuple[int, int]) -> None:
    """Holds the size of a file against the list's; a DataError if they differ."""
    if stored != listed:
        raise DataError(f"is {pixels(stored)}, in the list {pixels(listed)}")


@dataclasses.dataclass(frozen=True)
class CocoJson:
    """A file of annotations.

    Attributes:
      classes: the categories in the order of their ids.
      class_of: by the id of a category.
      images: by id, in the order of the file.
      annotations: as they stand in the file.
    """

    classes: Classes
    class_of: dict[int, int]
    images: dict[int, CocoImage]
    annotations: list[Any]

    def category(self, entry: dict) -> int:
        """The class of an annotation or segment."""
        category = entry.get("category_id")
        if type(category) is not int or category not in self.class_of:
            raise DataError(f"category_id {short(category)} is none of the categories")
        return self.class_of[category]

    def size(self, entry: dict) -> tuple[int, int]:
        """The (height, width) of an annotation's image."""
        image = entry.get("image_id")
        if type(image) is not int or image not in self.images:
            raise DataError(f"image_id {short(image)} is none of the images")
        return self.images[image].size


def read_coco_json(
    layout: Layout,
    *,
    max_value: int | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> CocoJson:
    """Reads categories, images and annotations, and checks all but the annotations.

    Args:
      layout: the places of the files.
      max_value: what becomes 255 in images of 16 bits; None keeps the upper 8 bits.
      progress: passes on what is checked, one at a time, and may show how far that is.

    Returns:
      The content.

    Raises:
      DataError: the file is malformed, or an image is missing, unreadable or of another size;
        names the file and each image.

    Example:
      >>> read_coco_json(Layout(Path("a.json"), Path("images"), Path("panoptic")))
      Traceback (most recent call last):
      segjax.data.errors.DataError: a.json: No such file or directory
    """
    check_max_value(max_value)
    with naming(layout.file):
        match read_json(layout.file):
            case {"images": list(images), "annotations": list(entries), "categories": list(listed)}:
                classes, class_of = _categories(listed)
            case _:
                raise DataError('is not {"images": [...], "annotations": [...], "categories": ...}')
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
    """Reads which images a JSON lists, and checks none of them.

    Args:
      file: the JSON.
      folder: of the images.

    Returns:
      The images by id, in the order of the file.

    Raises:
      DataError: the file is malformed; names it.

    Example:
      >>> read_image_list(Path("a.json"), Path("images"))
      Traceback (most recent call last):
      segjax.data.errors.DataError: a.json: No such file or directory
    """
    with naming(file):
        match read_json(file):
            case {"images": list(images)}:
                return _images(folder, images)
        raise DataError('is not {"images": [...], ...}')


def each_checked(file: Path, entries: Iterable[Any], check: Callable) -> Iterator[Any]:
    """Applies `check` to each annotation; the DataErrors come at the end, together.

    Args:
      file: that the annotations stand in.
      entries: the annotations.
      check: turns one into what is to be kept of it.

    Yields:
      What `check` gives.

    Raises:
      DataError: one or more of the annotations raised one; names the file and each one's id.

    Example:
      >>> list(each_checked(Path("a.json"), [{"id": 1}], lambda entry: entry["id"]))
      [1]
    """
    problems = []
    for place, entry in enumerate(entries):
        named = isinstance(entry, dict) and "id" in entry
        name = f"annotation {short(entry['id'])}" if named else f"annotations[{place}]"
        try:
            if not isinstance(entry, dict):
                raise DataError(f"is not {{...}}: {short(entry)}")
            yield check(entry)
        except DataError as error:
            problems.append(f"{name}: {error}")
    raise_all(file, problems)


def raise_all(what: Path, problems: list[str]) -> None:
    """A DataError with every problem, or the first of many; nothing if there is none."""
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
        raise DataError(f'has a category that is not {{"id", "name"}}: {short(entry)}')
    ordered = sorted(listed, key=lambda entry: entry["id"])
    ids = tuple(entry["id"] for entry in ordered)
    if (number := repeated(ids)) is not None:
        raise DataError(f"has several categories with the same id {number}")
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
        raise DataError("lists no images")
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
                    f'images[{place}] is not {{"id", "file_name", "height", "width"}}: '
                    f"{short(entry)}"
                )
        if number in by_id:
            raise DataError(f"has several images with the same id {short(number)}")
        with naming(f"images[{place}]"):
            by_id[number] = CocoImage(path_within(folder, file), (height, width))
    return by_id
