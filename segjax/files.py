"""Writing files: whole, or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def write_file(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file under another name and then renames it, so that no part of it is ever seen.

    Args:
      path: of the file; what is there is replaced.
      content: bytes, or text to be written in UTF-8.

    Raises:
      OSError: it cannot be written; names the file.

    Example:
      >>> write_file("no/such/folder/a.txt", "a")
      Traceback (most recent call last):
      FileNotFoundError: [Errno 2] No such file or directory: 'no/such/folder/a.txt'
    """
    file = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    draft = file.with_name(f"{file.name}.draft")
    with naming(path):
        try:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            draft.replace(file)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Names a file in the errors of the system, such as that of a full disk, which do not.

    Args:
      path: of the file.

    Raises:
      OSError: of the same kind, with the file's name.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
