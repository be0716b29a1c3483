"""How far a command is: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS = 10  # between the lines of a log


def track(elements: Sized, title: str) -> Iterator[Any]:
    """The elements of an iterable, and how many are done, on stderr.

    Args:
      elements: an iterable with a length.
      title: what is done with them.

    Yields:
      Its elements.
    """
    console = Console(stderr=True)
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    printed = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=len(elements))
        for count, element in enumerate(cast(Iterable, elements), 1):
            yield element
            progress.update(task, completed=count)
            if not console.is_terminal and time.monotonic() - printed >= _SECONDS:
                printed = time.monotonic()
                console.print(f"{title}: {count} of {len(elements)}", highlight=False)
