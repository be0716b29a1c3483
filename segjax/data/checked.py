"""What files say, held to types and bounds before anything is computed from it."""

import collections
import contextlib
import json
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from segjax.data.errors import DataError
from segjax.data.images import read_bytes


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Args:
      file: path of it.

    Returns:
      Its content.

    Raises:
      DataError: it cannot be read, or holds no JSON; does not name the file yet.
    """
    data = read_bytes(file)
    try:
        return json.loads(data)
    except RecursionError:
        raise DataError("is no readable JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"is no JSON ({error})") from error


def is_integer(value: Any, least: int, most: int) -> bool:
    """Whether a value of JSON is an integer of a range; True and False are none."""
    return type(value) is int and least <= value <= most


def numbers(name: str, values: Any, *, most: int) -> Float64[np.ndarray, " n"]:
    """A list of numbers of JSON, none of which is a text.

    Args:
      name: of the list, for the message.
      values: from the file.
      most: the largest absolute value.

    Returns:
      The numbers.

    Raises:
      DataError: it is something else.

    Example:
      >>> numbers("bbox", [1, 2.5], most=10)
      array([1. , 2.5])
    """
    if type(values) is list and set(map(type, values)) <= {int, float}:
        with contextlib.suppress(OverflowError):  # of an integer that no float holds
            array = np.array(values, np.float64)
            if (np.abs(array) <= most).all():  # which NaN is not
                return array
    raise DataError(f"{name}: expected a list of numbers within ±{most}, got {short(values)}")


def flag(entry: dict[str, Any], name: str, *, default: bool) -> bool:
    """A value of JSON that is 0, 1, true or false.

    Args:
      entry: that holds it.
      name: of the value.
      default: where it is missing.

    Returns:
      Whether it is set.

    Raises:
      DataError: it is something else, such as the text "0".

    Example:
      >>> flag({"iscrowd": 1}, "iscrowd", default=False)
      True
    """
    value = entry.get(name, default)
    if type(value) is bool or is_integer(value, 0, 1):
        return bool(value)
    raise DataError(f"{name}: expected 0 or 1, got {short(value)}")


def is_text(value: Any) -> bool:
    """Whether a value of JSON is a text that can be printed: no control characters, no half of a
    pair of surrogates."""
    return isinstance(value, str) and not any(
        unicodedata.category(c) in ("Cc", "Cs") for c in value
    )


def path_within(folder: Path, name: str) -> Path:
    """The path of a file that a data set names, which must be one of its own.

    Args:
      folder: of the data set's files.
      name: of the file, relative to the folder.

    Returns:
      The path.

    Raises:
      DataError: it leads out of the folder, or is none.

    Example:
      >>> path_within(Path("images"), "../secret.png")
      Traceback (most recent call last):
      segjax.data.errors.DataError: file_name: expected a path within images, got '../secret.png'
    """
    path = PurePosixPath(name)
    if not name or not is_text(name) or path.is_absolute() or ".." in path.parts:
        raise DataError(f"file_name: expected a path within {folder.name}, got {short(name)}")
    return folder / path


def repeated(values: Iterable[Any]) -> Any:
    """The first of the values that comes more than once; None if there is none."""
    return next((value for value, count in collections.Counter(values).items() if count > 1), None)


def short(value: Any) -> str:
    """A value of JSON for a message: on one line, the beginning of what is long or deep."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
