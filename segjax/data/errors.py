"""What opening and reading data says when something is wrong with it."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class DataError(ValueError):
    """Files or data that cannot be used; the message names each and says what is wrong with it."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist: the near matches, and all there are.

    Args:
      what: what was named, such as "split".
      name: what came.
      known: the names that exist.

    Returns:
      One line.

    Example:
      >>> unknown_name("split", "trian", ["train", "val"])
      "unknown split 'trian': did you mean 'train'? (there are: train, val)"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known)
    question = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {what} {name!r}{question} (there are: {', '.join(known) or 'none'})"


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
