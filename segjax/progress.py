"""How far something long is: a bar on a terminal, a line now and then in a log."""

import datetime
import threading
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
_FIRST = 1  # seconds before the first of them: what is quick needs none
_MEMORY = 600  # seconds of the past from which the time that is left is estimated


def say(console: Console, text: str) -> None:
    """Prints a line as it is; where there are bars, above them."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def bars(console: Console, *, transient: bool = False) -> Progress:
    """Bars on a terminal, each with a text behind it; elsewhere nothing is drawn.

    Args:
      console: where.
      transient: whether they vanish in the end.

    Returns:
      The bars, none yet: `add_task(title, total=..., text="")` adds one.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=not console.is_terminal or console.quiet,
        speed_estimate_period=_MEMORY,
    )


def track(elements: Sized, title: str, *, console: Console | None = None) -> Iterator[Any]:
    """The elements of an iterable, and how many are done.

    Args:
      elements: an iterable with a length.
      title: what is done with them.
      console: where to show it; None is stderr.

    Yields:
      Its elements.
    """
    console = Console(stderr=True) if console is None else console
    with bars(console, transient=True) as progress:
        yield from follow(progress, elements, title)


def follow(progress: Progress, elements: Sized, title: str) -> Iterator[Any]:
    """The elements of an iterable, with a bar of their own that vanishes in the end.

    Args:
      progress: as `bars` gives it.
      elements: an iterable with a length.
      title: what is done with them.

    Yields:
      Its elements.
    """
    number = progress.add_task(title, total=len(elements), text="")
    task, over = progress.tasks[progress.task_ids.index(number)], threading.Event()

    def report():
        said, wait = -1.0, _FIRST
        while not over.wait(wait):
            if task.completed > said:
                said, wait = task.completed, SECONDS
                say(progress.console, f"{title}: {said:.0f} of {len(elements)}{time_left(task)}")

    if not progress.console.is_terminal:
        threading.Thread(target=report, daemon=True).start()
    try:
        for count, element in enumerate(cast(Iterable, elements), 1):
            yield element
            progress.update(number, completed=count)
    finally:
        over.set()
        progress.remove_task(number)


def time_left(task: Task) -> str:
    """How long a task still takes, as the end of a line; nothing where that is not known."""
    seconds = task.time_remaining
    return f"  {datetime.timedelta(seconds=int(seconds))} left" if seconds else ""
