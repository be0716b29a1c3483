"""What COCO's kinds of annotation share: the files' places, the categories, the images."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from segjax.data.class_list import read_json
from segjax.data.errors import DataError, naming
from segjax.data.images import decode_image, read_bytes
from segjax.data.palette import palette
from segjax.data.source import Classes

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
      size: (height, width) that the list gives.
    """

    path: Path
    size: tuple[int, int]

    def read(self) -> np.ndarray:
        """RGB uint8 `[h, w, 3]`: as it is stored, for so the annotations were drawn.

        Raises:
          DataError: it cannot be read, or has another size; names the file.
        """
        with naming(self.path):
            pixels = decode_image(read_bytes(self.path), upright=False)
            check_size(pixels.shape[:2], self.size)
        return pixels


def check_size(stored: tuple[int, ...], listed: tuple[int, int]) -> None:
    """Holds the size of a file against the list's; a DataError if they differ."""
    if stored != listed:
        raise DataError(
            f"is {stored[0]} x {stored[1]} pixels (height x width), "
            f"in the list {listed[0]} x {listed[1]}"
        )


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
        if (category := entry.get("category_id")) not in self.class_of:
            raise DataError(f"category_id {category!r} is none of the categories")
        return self.class_of[category]

    def size(self, entry: dict) -> tuple[int, int]:
        """The (height, width) of an annotation's image."""
        if (image := entry.get("image_id")) not in self.images:
            raise DataError(f"image_id {image!r} is none of the images")
        return self.images[image].size


def read_coco_json(layout: Layout, *, progress: Callable[[Sequence], Iterable] = iter) -> CocoJson:
    """Reads categories, images and annotations, and checks all but the annotations.

    Args:
      layout: the places of the files.
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
    with naming(layout.file):
        match read_json(layout.file):
            case {"images": list(images), "annotations": list(entries), "categories": list(listed)}:
                classes, class_of = _categories(listed)
            case _:
                raise DataError('is not {"images": [...], "annotations": [...], "categories": ...}')
        by_id = dict(_image(layout.images, *item) for item in enumerate(images))
        if not images:
            raise DataError("lists no images")
        if len(by_id) < len(images):
            raise DataError("has several images with the same id")
    with ThreadPoolExecutor() as threads:
        checks = [threads.submit(_problem, image) for image in by_id.values()]
        problems = [text for check in progress(checks) if (text := check.result())]
    raise_all(layout.file, problems)
    return CocoJson(classes, class_of, by_id, entries)


def each_checked(file: Path, entries: Iterable[Any], check) -> Iterator[Any]:
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
        name = f"annotation {entry['id']}" if named else f"annotations[{place}]"
        try:
            if not isinstance(entry, dict):
                raise DataError(f"is not {{...}}: {entry!r}")
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
    for entry in listed:
        match entry:
            case {"id": int(), "name": str(), "color": [int(), int(), int()]}:
                pass
            case {"id": int(), "name": str()} if "color" not in entry:
                pass
            case _:
                raise DataError(
                    'has a category that is not {"id", "name"}, or with "color": [red, green, '
                    f"blue]: {entry!r}"
                )
    ordered = sorted(listed, key=lambda entry: entry["id"])
    class_of = {entry["id"]: number for number, entry in enumerate(ordered)}
    if len(class_of) < len(ordered):
        raise DataError("has several categories with the same id")
    defaults = palette(len(ordered)).tolist()
    colors = [entry.get("color", color) for entry, color in zip(ordered, defaults, strict=True)]
    return (
        Classes(
            tuple(entry["name"] for entry in ordered),
            tuple((red, green, blue) for red, green, blue in colors),
            tuple(bool(entry.get("isthing", True)) for entry in ordered),
        ),
        class_of,
    )


def _image(folder: Path, place: int, entry: Any) -> tuple[int, CocoImage]:
    match entry:
        case {"id": int(name), "file_name": str(file), "height": int(h), "width": int(w)}:
            return name, CocoImage(folder / file, (h, w))
    raise DataError(f'images[{place}] is not {{"id", "file_name", "height", "width"}}: {entry!r}')


def _problem(image: CocoImage) -> str | None:
    """What is wrong with an image, as far as its header tells."""
    try:
        with Image.open(image.path) as opened:
            check_size(opened.size[::-1], image.size)
    except DataError as error:
        return f"{image.path}: {error}"
    except UnidentifiedImageError:
        return f"{image.path}: is no readable image"
    except OSError as error:
        return f"{image.path}: {error.strerror or error}"
    return None
