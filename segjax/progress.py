"""Progress of long work: bars on a terminal, occasional lines elsewhere."""

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

SECONDS = 10  # between lines, where there is no terminal
_FIRST = 1  # seconds before the first line, so that quick work has none
_MEMORY = 600  # seconds of the past from which the remaining time is estimated


def say(console: Console, text: str) -> None:
    """Prints a line as it is, above any bars."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def bars(console: Console, *, transient: bool = False) -> Progress:
    """Progress bars on a terminal, each followed by a text; nothing elsewhere.

    Args:
      console: console to draw on.
      transient: whether the bars are removed at the end.

    Returns:
      The bars, at first none: `add_task(title, total=..., text="")` adds one.
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
    """Yields the elements of an iterable, with a progress bar on a console.

    Args:
      elements: an iterable with a length.
      title: title of the bar.
      console: console to draw on; None is stderr.

    Yields:
      The elements.
    """
    console = Console(stderr=True) if console is None else console
    with bars(console, transient=True) as progress:
        yield from follow(progress, elements, title)


def follow(progress: Progress, elements: Sized, title: str) -> Iterator[Any]:
    """Yields the elements of an iterable, with a bar that is removed at the end.

    Args:
      progress: the bars, as from `bars`.
      elements: an iterable with a length.
      title: title of the bar.

    Yields:
      The elements.
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
    """The remaining time of a task as the end of a line; empty if unknown."""
    seconds = task.time_remaining
    return f"  {datetime.timedelta(seconds=int(seconds))} left" if seconds else ""
