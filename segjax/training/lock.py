"""One training at a time in a folder: a file says which process it is."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax

from segjax.files import naming

NAME = "lock.json"
STOPPED = 128 + signal.SIGTERM  # as a shell says it


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keeps a folder to this process, or of several to the program whose process 0 it is.

    SIGTERM ends the block as an error does (exit code 143), unless it handles that itself. What a
    killed process leaves behind is recognised on the same host, where that process is no more.

    Args:
      folder: made if missing; an empty one is removed in the end.

    Raises:
      BlockingIOError: another process trains there; it says which, and how to remove what one on
        another host has left.
    """
    if jax.process_index() != 0:
        yield
        return
    file = folder / NAME
    folder.mkdir(parents=True, exist_ok=True)
    with _unwinding():
        _take(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()


def _take(file: pathlib.Path) -> None:
    us = {"host": socket.gethostname(), "pid": os.getpid()}
    while True:
        with contextlib.suppress(FileExistsError):
            return _create(file, json.dumps(us) + "\n")
        holder = _read(file)
        if holder is not None and _is_alive(holder, us):
            raise BlockingIOError(
                f"{file.parent}: process {holder.get('pid', '?')} on {holder.get('host', '?')} "
                f"trains there. Give another --run or, if that process is no more, delete {file}"
            )
        _remove_stale(file, holder)


def _create(file: pathlib.Path, text: str) -> None:
    """Makes the file; FileExistsError where there is one."""
    with naming(file), file.open("x") as stream:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            file.unlink(missing_ok=True)
            raise


def _read(file: pathlib.Path) -> dict[str, Any] | None:
    """Who holds the lock; None where it is gone."""
    try:
        holder = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        holder = None
    return holder if isinstance(holder, dict) else {}


def _is_alive(holder: dict[str, Any], us: dict[str, Any]) -> bool:
    """Whether the holder may still train. Our own number is of an earlier process, as in a
    container that starts again."""
    pid = holder.get("pid")
    if type(pid) is not int or pid <= 0 or holder.get("host") != us["host"]:
        return True
    if pid == us["pid"]:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    return True


def _remove_stale(file: pathlib.Path, holder: dict[str, Any] | None) -> None:
    """Moves it away first: meanwhile another start may have replaced it by its own."""
    if holder is None:
        return
    moved = file.with_name(f"{file.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(moved)
        if _read(moved) == holder:
            moved.unlink()
        else:
            moved.rename(file)


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    """Lets SIGTERM end the process in order, where nobody has asked for something else, such as
    JAX with several processes."""
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and jax.process_count() == 1
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
