"""A lock file that keeps two trainings from writing to the same folder."""

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

from segjax.files import name_os_errors

NAME = "lock.json"
STOPPED = 128 + signal.SIGTERM  # the exit code that a shell gives a process stopped by SIGTERM


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Reserves a folder for this program while the block runs.

    With several processes, process 0 holds the lock for all. SIGTERM leaves the block like an
    exception (exit code 143), unless the block handles the signal itself. The lock of a process
    that was killed is recognised and removed, if that process ran on this host.

    Args:
      folder: Folder to lock. It is created if missing, and removed again if it stays empty.

    Raises:
      BlockingIOError: If another process holds the lock. The message names that process.
    """
    if jax.process_index() != 0:
        yield
        return
    file = folder / NAME
    folder.mkdir(parents=True, exist_ok=True)
    with _exit_on_sigterm():
        _take(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()


def _take(file: pathlib.Path) -> None:
    this = {"host": socket.gethostname(), "pid": os.getpid()}
    while True:
        with contextlib.suppress(FileExistsError):
            return _create(file, json.dumps(this) + "\n")
        holder = _read(file)
        if holder is not None and _is_alive(holder, this):
            raise BlockingIOError(
                f"{file.parent}: in use by process {holder.get('pid', '?')} on "
                f"{holder.get('host', '?')}; choose another --run or, if that process has ended, "
                f"delete {file}"
            )
        _remove_stale(file, holder)


def _create(file: pathlib.Path, text: str) -> None:
    """Creates the file. Raises FileExistsError if it exists."""
    with name_os_errors(file), file.open("x") as stream:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            file.unlink(missing_ok=True)
            raise


def _read(file: pathlib.Path) -> dict[str, Any] | None:
    """The process that holds the lock: empty if the file is unreadable, None if it is gone."""
    try:
        holder = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        holder = None
    return holder if isinstance(holder, dict) else {}


def _is_alive(holder: dict[str, Any], this: dict[str, Any]) -> bool:
    """Whether the holder may still be running.

    If it has the id of this process, it was an earlier one, as in a restarted container.
    """
    pid = holder.get("pid")
    if type(pid) is not int or pid <= 0 or holder.get("host") != this["host"]:
        return True
    if pid == this["pid"]:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs, under another user
        pass
    return True


def _remove_stale(file: pathlib.Path, holder: dict[str, Any] | None) -> None:
    """Removes the lock of a process that has ended.

    The file is moved first, because another process may just have replaced it by its own lock.
    """
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
def _exit_on_sigterm() -> Iterator[None]:
    """Turns SIGTERM into SystemExit, unless the signal is handled already.

    With several processes JAX handles it.
    """
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and jax.process_count() == 1
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
