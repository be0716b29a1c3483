"""What opening and reading data says when something is wrong with it."""

import contextlib
from collections.abc import Iterator


class DataError(ValueError):
    """Files or data that cannot be used; the message names each and says what is wrong with it."""


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Puts `what`, such as a file's path, in front of the message of a DataError raised inside.

    Args:
      what: printed by `str`.

    Raises:
      DataError: the one raised inside, named.

    Example:
      >>> with naming("a.png"):
      ...     raise DataError("is empty")
      Traceback (most recent call last):
      segjax.data.errors.DataError: a.png: is empty
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
