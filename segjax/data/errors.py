"""The error of files and data that cannot be used."""

import contextlib
from collections.abc import Iterator


class DataError(ValueError):
    """Files or data that cannot be used: each is named, with what was expected of it."""


@contextlib.contextmanager
def prefix_errors(what: object) -> Iterator[None]:
    """Puts a name, such as a file's path, before the message of a DataError raised inside.

    Args:
      what: The name, converted by `str`.

    Raises:
      DataError: The error raised inside, with the name before its message.

    Example:
      >>> from segjax import data
      >>> from segjax.data.errors import prefix_errors
      >>> with prefix_errors("a.png"):
      ...     raise data.DataError("expected an image, got an empty file")
      Traceback (most recent call last):
      segjax.data.errors.DataError: a.png: expected an image, got an empty file
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
