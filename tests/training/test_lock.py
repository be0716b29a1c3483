"""The lock on a run's folder: one training at a time, and nothing that stays in the way."""

import json
import os
import signal
import socket
import subprocess

import jax
import pytest
from runs import tiny

from segjax.training import lock, train
from segjax.training.lock import NAME, locked


def _left(folder, **holder):
    """A lock that a process has left."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(json.dumps({"host": socket.gethostname()} | holder))


@pytest.fixture
def another():
    """Another process of this host."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_it_says_who_trains_and_goes_in_the_end(tmp_path):
    with locked(tmp_path / "run"):
        held = json.loads((tmp_path / "run" / NAME).read_text())
        (tmp_path / "run" / "config.json").touch()
    assert held == {"host": socket.gethostname(), "pid": os.getpid()}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_an_error_before_there_is_a_run_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_trains_keeps_others_out(tmp_path, another):
    _left(tmp_path, pid=another.pid)
    before = (tmp_path / NAME).read_bytes()
    told = f"in use by process {another.pid} on {socket.gethostname()};.*delete .*{NAME}"
    with pytest.raises(BlockingIOError, match=told), locked(tmp_path):
        pass
    assert (tmp_path / NAME).read_bytes() == before


def test_of_another_host_nobody_knows(tmp_path):
    _left(tmp_path, host="another", pid=1)
    with pytest.raises(BlockingIOError, match="process 1 on another"), locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "[]", '{"host": 3, "pid": "x"}', "{"])
def test_what_is_unreadable_may_be_just_being_written(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(BlockingIOError, match="delete"), locked(tmp_path):
        pass


def test_a_killed_process_is_in_nobodys_way(tmp_path, another):
    another.kill()
    another.wait()
    _left(tmp_path, pid=another.pid)
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_our_own_number_is_of_an_earlier_container(tmp_path):
    _left(tmp_path, pid=os.getpid())
    with locked(tmp_path):
        pass
    assert not (tmp_path / NAME).exists()


def test_a_lock_taken_meanwhile_is_put_back(tmp_path, another):
    """Two find the same stale lock; the other has replaced it before we remove it."""
    _left(tmp_path, pid=os.getpid())
    stale = lock._read(tmp_path / NAME)
    _left(tmp_path, pid=another.pid)
    lock._remove_stale(tmp_path / NAME, stale)
    assert lock._read(tmp_path / NAME)["pid"] == another.pid


def test_sigterm_removes_it_and_says_so_by_the_exit_code(tmp_path):
    with pytest.raises(SystemExit) as stopped, locked(tmp_path / "run"):
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_processes_of_a_program_take_none(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with locked(tmp_path / "run"):
        assert list(tmp_path.iterdir()) == []


def test_training_is_refused_before_any_data_is_read(tmp_path, data, another, monkeypatch):
    config = tiny(tmp_path / "run", data)
    _left(config.run, pid=another.pid)
    monkeypatch.setattr("segjax.training.loop.open_config_source", None)
    with pytest.raises(BlockingIOError, match=f"process {another.pid}"):
        train(config)
