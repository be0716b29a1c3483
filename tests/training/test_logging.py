"""The log: one row of JSON each time, taken up where a run goes on, written by process 0 alone."""

import json

import jax
import pytest
from runs import full_disk

from segjax.training.logging import Logger


def _rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_are_there_as_soon_as_they_are_logged(tmp_path):
    with Logger(tmp_path, start=0, steps=3) as logger:
        logger.log(1, {"loss": 2.5})
        assert _rows(tmp_path) == [{"step": 1, "loss": 2.5}]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_null(tmp_path, value):
    with Logger(tmp_path, start=0, steps=3) as logger:
        logger.log(1, {"loss": value})
    assert _rows(tmp_path) == [{"step": 1, "loss": None}]


def test_going_on_drops_the_rows_that_are_taken_anew(tmp_path):
    with Logger(tmp_path, start=0, steps=9) as logger:
        for step in (1, 2, 3, 4):
            logger.log(step, {"loss": 1.0})
    with Logger(tmp_path, start=2, steps=9) as logger:
        logger.log(3, {"loss": 9.0})
    assert [(row["step"], row["loss"]) for row in _rows(tmp_path)] == [(1, 1), (2, 1), (3, 9)]


def test_half_a_row_of_a_killed_process_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    with Logger(tmp_path, start=2, steps=9) as logger:
        logger.log(3, {"loss": 1.0})
    assert [row["step"] for row in _rows(tmp_path)] == [1, 3]


def test_other_processes_write_and_print_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Logger(tmp_path, start=0, steps=3) as logger:
        logger.log(1, {"loss": 2.5})
        logger.say("here")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_full_disk_is_one_line_and_costs_no_rows(tmp_path):
    rows = '{"step": 1, "loss": 1.0}\n' * 50
    (tmp_path / "metrics.jsonl").write_text(rows)
    with full_disk(), pytest.raises(OSError, match=r"metrics\.jsonl"):
        Logger(tmp_path, start=2, steps=9)
    assert (tmp_path / "metrics.jsonl").read_text() == rows
    assert len(list(tmp_path.iterdir())) == 1
    with Logger(tmp_path, start=2, steps=9) as logger:
        logger.log(3, {"loss": 1.0})
        with full_disk(), pytest.raises(OSError, match=r"metrics\.jsonl"):
            logger.log(4, {"loss": 1.0})
    assert (tmp_path / "metrics.jsonl").read_text().startswith(rows)
