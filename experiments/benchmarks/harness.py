"""Measures forms of the same computation side by side: ours and the peers', in one run.

Every form runs in a process of its own; the processes take turns, a run each, and the medians
count. Memory is what a process's peak (`ru_maxrss`) rises above what it held before the first run.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Run = Callable[[], Any]


def main(
    doc: str,
    table: Mapping[str, Sequence[str]],
    make_run: Callable[[str, str], Run],
    *,
    result_size: Callable[[str], int] = lambda task: 0,
) -> None:
    """The command line of a benchmark: prints a table for each task.

    Args:
      doc: its docstring, the first line of which is its help.
      table: by task the forms, ours first; names of ours start with "segjax".
      make_run: of (task, form), in the form's own process: a function that does one run to its end
        and returns a number on which all forms agree.
      result_size: of the task: how many float32 every form has to hold as its result. They do not
        count as added memory.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each form")
    parser.add_argument("--only", default="", help="tasks with this in their name")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        task, form = arguments.work
        _work(make_run(task, form), result_size(task))
        return
    for task, forms in table.items():
        if arguments.only in task:
            _measure(task, forms, arguments.rounds)


def _work(run: Run, result_size: int) -> None:
    """Answers every line on standard input with a run: its seconds, value and added memory."""
    room = np.ones(result_size, np.float32)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del room
    for _ in sys.stdin:
        start = time.perf_counter()
        value = float(run())
        seconds = time.perf_counter() - start
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
        print(json.dumps([seconds, value, added / 1024]), flush=True)


def _measure(task: str, forms: Sequence[str], rounds: int) -> None:
    """Prints a line for each form."""
    workers = [
        subprocess.Popen(
            [sys.executable, sys.argv[0], "--work", task, form],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for form in forms
    ]
    runs: list[list] = [[] for _ in forms]
    for turn in range(rounds + 1):
        for form, worker, results in zip(forms, workers, runs, strict=True):
            worker.stdin.write("\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            if not line:
                raise RuntimeError(f"{task}: the process of {form} ended with {worker.wait()}")
            if turn:  # the first warms up
                results.append(json.loads(line))
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    milliseconds = [1000 * statistics.median(seconds for seconds, _, _ in run) for run in runs]
    print(f"\n### {task}\n\n| form | ms | of the fastest peer's | added MiB | value |")
    print("|---|---|---|---|---|")
    best = min(ms for form, ms in zip(forms, milliseconds, strict=True) if "segjax" not in form)
    for form, ms, run in zip(forms, milliseconds, runs, strict=True):
        _, value, added = run[-1]
        time_taken = f"{ms:.0f}" if ms >= 10 else f"{ms:.2f}"
        print(
            f"| {form} | {time_taken} | {ms / best:.2f} | {added:.0f} | {value:.8g} |", flush=True
        )
