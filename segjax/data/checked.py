"""Values read from files, checked for type and range before anything is computed from them."""

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
    """Reads a JSON file.

    Args:
      file: path of the file.

    Returns:
      The parsed content.

    Raises:
      DataError: if it cannot be read or is not JSON. The message does not name the file yet.
    """
    data = read_bytes(file)
    try:
        return json.loads(data)
    except RecursionError:
        raise DataError("expected JSON, got text that is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"expected JSON ({error})") from error


def is_integer(value: Any, least: int, most: int) -> bool:
    """Whether a JSON value is an integer within a range; True and False are not integers."""
    return type(value) is int and least <= value <= most


def numbers(name: str, values: Any, *, most: int) -> Float64[np.ndarray, " n"]:
    """Checks that a JSON value is a list of numbers.

    Args:
      name: name of the list in errors.
      values: the value, as parsed.
      most: largest absolute value allowed.

    Returns:
      The numbers.

    Raises:
      DataError: if it is anything else, such as a list with strings.

    Example:
      >>> from segjax.data.checked import numbers
      >>> numbers("bbox", [1, 2.5], most=10)
      array([1. , 2.5])
    """
    if type(values) is list and set(map(type, values)) <= {int, float}:
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            array = np.array(values, np.float64)
            if (np.abs(array) <= most).all():  # which NaN is not
                return array
    raise DataError(f"{name}: expected a list of numbers within ±{most}, got {short(values)}")


def flag(entry: dict[str, Any], name: str, *, default: bool) -> bool:
    """Reads a flag from a JSON object: 0, 1, true or false.

    Args:
      entry: the JSON object.
      name: key of the flag.
      default: value where the key is missing.

    Returns:
      Whether the flag is set.

    Raises:
      DataError: if it is anything else, such as the string "0".

    Example:
      >>> from segjax.data.checked import flag
      >>> flag({"iscrowd": 1}, "iscrowd", default=False)
      True
    """
    value = entry.get(name, default)
    if type(value) is bool or is_integer(value, 0, 1):
        return bool(value)
    raise DataError(f"{name}: expected 0 or 1, got {short(value)}")


def is_text(value: Any) -> bool:
    """Whether a JSON value is a printable string: no control characters, no lone surrogates."""
    return isinstance(value, str) and not any(
        unicodedata.category(c) in ("Cc", "Cs") for c in value
    )


def path_within(folder: Path, name: str) -> Path:
    """Joins a folder and a file name from a data set, refusing paths that leave the folder.

    Args:
      folder: folder of the data set's files.
      name: path of the file relative to the folder, as the data set gives it.

    Returns:
      The path.

    Raises:
      DataError: if the name is not a relative path within the folder.

    Example:
      >>> from pathlib import Path
      >>> from segjax.data.checked import path_within
      >>> path_within(Path("images"), "../secret.png")
      Traceback (most recent call last):
      segjax.data.errors.DataError: file_name: expected a path within images, got '../secret.png'
    """
    path = PurePosixPath(name)
    if not name or not is_text(name) or path.is_absolute() or ".." in path.parts:
        raise DataError(f"file_name: expected a path within {folder.name}, got {short(name)}")
    return folder / path


def repeated(values: Iterable[Any]) -> Any:
    """The first value that occurs more than once; None if there is none."""
    return next((value for value, count in collections.Counter(values).items() if count > 1), None)


def short(value: Any) -> str:
    """A JSON value for an error message, on one line and shortened where it is long or deep."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
