"""Reads which classes a folder of masks has, and how the masks write them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from segjax.data.errors import DataError, naming
from segjax.data.images import read_bytes
from segjax.data.label_code import VOID, LabelCode
from segjax.data.palette import palette
from segjax.data.source import Classes

_LARGEST_VALUE = 65535
_USUAL_VOID = 255


@dataclasses.dataclass(frozen=True)
class _Declared:
    """An entry of `classes.json`."""

    value: int
    name: str
    color: tuple[int, int, int] | None


def read_classes(file: Path, *, void: int | None = None) -> tuple[Classes, LabelCode]:
    """Reads a `classes.json`.

    It is a list, or `{"classes": [list], "ignore_index": 255}`; the list holds names, whose places
    are the ids, or `{"id": 0, "name": "sky", "color": [128, 128, 128]}`.

    Args:
      file: path of it.
      void: the mask value without a class, instead of the declared `ignore_index`.

    Returns:
      The classes in the order of their ids, and the code of the masks. Void are `void` or
      `ignore_index`, even if that is the id of an entry, and 255 unless that is the id of a class.

    Raises:
      DataError: it is missing or malformed; names the file.

    Example:
      >>> read_classes(Path("classes.json"))
      Traceback (most recent call last):
      segjax.data.errors.DataError: classes.json: No such file or directory
    """
    with naming(file):
        content = read_json(file)
        if isinstance(content, list):
            content = {"classes": content}
        if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
            raise DataError('is neither a list nor {"classes": [...], "ignore_index": ...}')
        declared = [_declared(*item) for item in enumerate(content["classes"])]
        values = [each.value for each in declared]
        if repeated := [value for value in values if values.count(value) > 1]:
            raise DataError(f"has several classes with the id {repeated[0]}")
        ignored = content.get("ignore_index") if void is None else void
        if ignored is not None and not _is_value(ignored, _LARGEST_VALUE):
            raise DataError(f"ignore_index must be 0..{_LARGEST_VALUE}, got {ignored!r}")
        classes = sorted((each for each in declared if each.value != ignored), key=_value)
        if not classes:
            raise DataError("has no class")

    defaults = zip(classes, map(tuple, palette(len(classes)).tolist()), strict=True)
    drawn = [each.color for each in declared]
    return (
        Classes(
            tuple(each.name for each in classes),
            tuple(each.color or default for each, default in defaults),
        ),
        LabelCode.of(
            [each.value for each in classes],
            void={_USUAL_VOID} if ignored is None else {_USUAL_VOID, ignored},
            colors={c.color: c.value for c in declared if c.color and drawn.count(c.color) == 1},
        ),
    )


def instance_classes(file: Path, *, void: int | None = None) -> tuple[Classes, LabelCode]:
    """Background and object, for maps of instances: 0 and every other value.

    Args:
      file: path of a COCO `instances.json`, whose category is the object's name if it is the only
        one; the name is "object" if the file has several or does not exist.
      void: the value of pixels without a class.

    Returns:
      The two classes, of which the object is a thing, and the code of the maps.

    Raises:
      DataError: the file is malformed; names it.

    Example:
      >>> instance_classes(Path("instances.json"))[0].names
      ('background', 'object')
    """
    name = "object"
    if file.exists():
        with naming(file):
            content = read_json(file)
            match content.get("categories") if isinstance(content, dict) else None:
                case [{"name": str(only)}]:
                    name = only
                case list():
                    pass
                case _:
                    raise DataError('is not {"categories": [{"name": ...}], ...}')
    table = np.ones(_LARGEST_VALUE + 1, np.int32)
    table[0] = 0
    if void is not None:
        table[void] = VOID
    colors = ((0, 0, 0), tuple(palette(1)[0].tolist()))
    return Classes(("background", name), colors, (False, True)), LabelCode(table)


def read_json(file: Path) -> Any:
    """What a JSON file holds; a DataError, which does not name the file, where it holds none."""
    data = read_bytes(file)
    try:
        return json.loads(data)
    except ValueError as error:
        raise DataError(f"is no JSON ({error})") from error


def _declared(place: int, entry: Any) -> _Declared:
    match entry:
        case str(name):
            return _Declared(place, name, None)
        case {"name": str(name)}:
            value, color = entry.get("id", place), entry.get("color")
        case _:
            raise DataError(f'entry {place} is neither a name nor {{"id", "name"}}: {entry!r}')
    if not _is_value(value, _LARGEST_VALUE):
        raise DataError(f"the id of {name!r} must be 0..{_LARGEST_VALUE}, got {value!r}")
    if color is None:
        return _Declared(value, name, None)
    if not isinstance(color, list) or len(color) != 3 or not all(_is_value(c, 255) for c in color):
        raise DataError(f"the color of {name!r} must be three integers 0..255, got {color!r}")
    return _Declared(value, name, (color[0], color[1], color[2]))


def _is_value(value: Any, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def _value(declared: _Declared) -> int:
    return declared.value
