"""How far something is: lines in a log, a bar on a terminal, nothing of what is quick."""

import io
import time

import pytest
from rich.console import Console

from segjax import progress

PATIENCE = 60  # seconds after which a line that is awaited counts as missing


@pytest.fixture
def console():
    return Console(file=io.StringIO())


def test_a_log_has_a_line_at_the_start_and_then_now_and_then(console, monkeypatch):
    monkeypatch.setattr(progress, "_FIRST", 0)
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    for done, _ in enumerate(progress.track("abc", "checking [val]", console=console)):
        deadline = time.monotonic() + PATIENCE
        while f"checking [val]: {done} of 3" not in console.file.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.001)
    first, *_, last = console.file.getvalue().splitlines()
    assert first == "checking [val]: 0 of 3"  # before anything is done: that may take long
    assert last.startswith("checking [val]: 2 of 3  0:00:")
    assert last.endswith(" left")


def test_a_log_says_nothing_of_what_is_quick(console, monkeypatch):
    monkeypatch.setattr(progress, "_FIRST", PATIENCE)
    assert list(progress.track([1, 2, 3], "checking", console=console)) == [1, 2, 3]
    assert console.file.getvalue() == ""


def test_a_terminal_has_a_bar(monkeypatch):
    monkeypatch.setattr(progress, "_FIRST", 0)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    assert list(progress.track([1, 2, 3], "checking", console=console)) == [1, 2, 3]
    text = console.file.getvalue()
    assert "checking" in text
    assert " of 3" not in text


def test_a_bar_goes_where_the_loop_fails(console):
    bars = progress.bars(console)
    elements = progress.follow(bars, [1, 2, 3], "checking")
    next(elements)
    assert len(bars.tasks) == 1
    elements.close()
    assert bars.tasks == []
