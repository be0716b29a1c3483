"""The classes of a folder of masks, and the values that stand for them."""

import collections
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from segjax.data.checked import is_integer, is_text, read_json, repeated, short
from segjax.data.errors import DataError, prefix_errors
from segjax.data.label_code import VOID, LabelCode
from segjax.data.palette import default_colors
from segjax.data.source import Classes
from segjax.files import write_file

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

    It is a list, or `{"classes": [list], "ignore_index": 255}`. The list holds names, whose indices
    are the ids, or `{"id": 0, "name": "sky", "color": [128, 128, 128]}`.

    Args:
      file: path of the file.
      void: mask value that is void, instead of the declared `ignore_index`.

    Returns:
      The classes in the order of their ids, and the code of the masks. Void are `void` or
      `ignore_index`, even if an entry has that id, and 255 unless a class has that id.

    Raises:
      DataError: if the file is missing or malformed; it names the file.

    Example:
      >>> from pathlib import Path
      >>> from segjax.data.class_list import read_classes
      >>> read_classes(Path("classes.json"))
      Traceback (most recent call last):
      segjax.data.errors.DataError: classes.json: No such file or directory
    """
    with prefix_errors(file):
        content = read_json(file)
        if isinstance(content, list):
            content = {"classes": content}
        if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
            raise DataError('expected a list, or {"classes": [...], "ignore_index": ...}')
        declared = [_declared(*item) for item in enumerate(content["classes"])]
        if (value := repeated(each.value for each in declared)) is not None:
            raise DataError(f"classes: expected ids that differ, got several {value}")
        ignored = content.get("ignore_index") if void is None else void
        if ignored is not None and not is_integer(ignored, 0, _LARGEST_VALUE):
            raise DataError(f"ignore_index: expected 0..{_LARGEST_VALUE}, got {short(ignored)}")
        classes = sorted((each for each in declared if each.value != ignored), key=_value)
        if not classes:
            raise DataError("classes: expected at least one, got none")

    values = [each.value for each in classes]
    colors = zip(classes, default_colors(len(classes)), strict=True)
    drawn = collections.Counter(each.color for each in declared)
    return (
        Classes(
            tuple(each.name for each in classes),
            tuple(each.color or default for each, default in colors),
            ids=tuple(values),
        ),
        LabelCode.of(
            values,
            void={_USUAL_VOID} if ignored is None else {_USUAL_VOID, ignored},
            colors={c.color: c.value for c in declared if c.color and drawn[c.color] == 1},
        ),
    )


def instance_classes(file: Path, *, void: int | None = None) -> tuple[Classes, LabelCode]:
    """The two classes of instance maps: background (0) and object (every other value).

    Args:
      file: path of a COCO `instances.json`, whose category is the object's name and id if it is
        the only one; they are "object" and 1 if the file has several or does not exist.
      void: value of void pixels.

    Returns:
      The two classes, of which the object is a thing, and the code of the maps.

    Raises:
      DataError: if the file is malformed; it names the file.

    Example:
      >>> from pathlib import Path
      >>> from segjax.data.class_list import instance_classes
      >>> instance_classes(Path("instances.json"))[0].names
      ('background', 'object')
    """
    name, number = "object", 1
    if file.exists():
        with prefix_errors(file):
            content = read_json(file)
            match content.get("categories") if isinstance(content, dict) else None:
                case [{"name": only} as category] if is_text(only):
                    name = only
                    if is_integer(category.get("id"), 0, _LARGEST_VALUE):
                        number = category["id"]
                case list():
                    pass
                case _:
                    raise DataError('expected {"categories": [{"name": ...}], ...}')
    table = np.ones(_LARGEST_VALUE + 1, np.int32)
    table[0] = 0
    if void is not None:
        table[void] = VOID
    colors, background = ((0, 0, 0), *default_colors(1)), 0 if number else 1
    classes = Classes(("background", name), colors, (False, True), (background, number))
    return classes, LabelCode(table)


def write_classes(file: Path, classes: Classes) -> None:
    """Writes the `classes.json` of masks in which each pixel has the id of its class.

    Args:
      file: path of the file.
      classes: names, ids and colours of the classes.

    Example:
      >>> from pathlib import Path
      >>> from segjax import data
      >>> from segjax.data.class_list import read_classes
      >>> from segjax.data.class_list import write_classes
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file, classes = Path(folder, "classes.json"), data.Classes(("sky",), ((1, 2, 3),))
      ...     write_classes(file, classes)
      ...     read_classes(file)[0].names
      ('sky',)
    """
    entries = [
        {"id": number, "name": name, "color": list(color)}
        for number, name, color in zip(classes.ids, classes.names, classes.colors, strict=True)
    ]
    write_file(file, json.dumps({"classes": entries}, indent=1) + "\n")


def _declared(place: int, entry: Any) -> _Declared:
    match entry:
        case str(name) if is_text(name):
            return _Declared(place, name, None)
        case {"name": str(name)} if is_text(name):
            value, color = entry.get("id", place), entry.get("color")
        case _:
            raise DataError(
                f'classes[{place}]: expected a name or {{"id", "name"}}, got {short(entry)}'
            )
    if not is_integer(value, 0, _LARGEST_VALUE):
        raise DataError(f"the id of {name!r}: expected 0..{_LARGEST_VALUE}, got {short(value)}")
    if color is None:
        return _Declared(value, name, None)
    return _Declared(value, name, read_color(name, color))


def read_color(name: str, color: Any) -> tuple[int, int, int]:
    """Reads the colour of a class from JSON; a DataError if it is not one."""
    match color:
        case [int(red), int(green), int(blue)] if all(is_integer(c, 0, 255) for c in color):
            return red, green, blue
    raise DataError(f"the color of {name!r}: expected three integers 0..255, got {short(color)}")


def _value(declared: _Declared) -> int:
    return declared.value
