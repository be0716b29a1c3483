"""Atomic writing of files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def write_file(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file atomically: under another name first, which is then renamed.

    Args:
      path: path of the file; an existing file is replaced.
      content: bytes, or text, which is written in UTF-8.

    Raises:
      OSError: if the file cannot be written; it names the file.

    Example:
      >>> write_file("no/such/folder/a.txt", "a")
      Traceback (most recent call last):
      FileNotFoundError: [Errno 2] No such file or directory: 'no/such/folder/a.txt'
    """
    file = Path(os.path.realpath(path))  # a link is kept, and its target replaced
    draft = file.with_name(f"{file.name}.draft")
    with name_os_errors(path):
        try:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            draft.replace(file)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


@contextlib.contextmanager
def name_os_errors(path: str | os.PathLike) -> Iterator[None]:
    """Adds a file's name to system errors that lack it, such as that of a full disk.

    Args:
      path: path of the file.

    Raises:
      OSError: the same error with the file's name.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
