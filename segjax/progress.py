"""How far something long is: a bar on a terminal, a line now and then in a log."""

import functools
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

SECONDS = 10  # between the lines of a log
_MEMORY = 600  # seconds of the past from which the time that is left is estimated

say = functools.partial(Console.print, markup=False, highlight=False, soft_wrap=True)


def bars(console: Console) -> Progress:
    """Bars on a terminal, each with a text; nothing is drawn elsewhere.

    Args:
      console: where.

    Returns:
      The bars, without any yet: `add_task(title, total=..., text="")` adds one.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or console.quiet,
        speed_estimate_period=_MEMORY,
    )


def follow(progress: Progress, elements: Sized, title: str) -> Iterator[Any]:
    """The elements of an iterable, with a bar of their own.

    Args:
      progress: as `bars` gives it.
      elements: an iterable with a length.
      title: what is done with them.

    Yields:
      Its elements.
    """
    task = progress.add_task(title, total=len(elements), text="")
    printed = time.monotonic()
    for count, element in enumerate(cast(Iterable, elements), 1):
        yield element
        progress.update(task, completed=count)
        if not progress.console.is_terminal and time.monotonic() - printed >= SECONDS:
            printed = time.monotonic()
            left = time_left(progress.tasks[progress.task_ids.index(task)])
            say(progress.console, f"{title}: {count} of {len(elements)}{left}")
    progress.remove_task(task)


def track(elements: Sized, title: str, *, console: Console | None = None) -> Iterator[Any]:
    """The elements of an iterable, and how many are done.

    Args:
      elements: an iterable with a length.
      title: what is done with them.
      console: where to say so; None is stderr.

    Yields:
      Its elements.
    """
    with bars(Console(stderr=True) if console is None else console) as progress:
        yield from follow(progress, elements, title)


def time_left(task: Task) -> str:
    """How long a task still takes, as the end of a line; nothing where that is not known."""
    seconds = task.time_remaining
    if not seconds:
        return ""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"  {hours}:{minutes:02}:{seconds:02} left"
