"""Processes that are told to stop, or killed: the same command goes on to the same numbers."""

import random
import signal
import time

import jax
import pytest
from numpy.testing import assert_array_equal
from runs import finish, metrics, saved_state, saved_steps, started, tiny, wait_for_step

from segjax.training.checkpoint import load_variables

pytestmark = pytest.mark.slow

# Many steps, for an interruption to fall in between.
LONG = {"steps": 60, "eval_every": 60, "batch_size": 2, "eval_batch_size": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data, compiled):
    """The run that nothing interrupts."""
    config = tiny(tmp_path_factory.mktemp("whole") / "run", data, **LONG)
    with started(config, compiled) as process:
        finish(process)
    return config.run


def _assert_same_run(run, whole):
    assert metrics(run) == metrics(whole)
    jax.tree.map(assert_array_equal, saved_state(run), saved_state(whole))


def test_sigterm_saves_and_the_same_command_goes_on(whole, data, compiled, tmp_path):
    config = tiny(tmp_path / "run", data, **LONG | {"save_every": 60})
    with started(config, compiled) as process:
        wait_for_step(process, config.run, 5)
        process.send_signal(signal.SIGTERM)
        output = finish(process)
    (step,) = saved_steps(config.run)
    assert 5 <= step < 60
    assert f"stopped after step {step} and saved" in output
    with started(config, compiled) as process:
        assert f"resuming {config.run} from step {step}" in finish(process)
    _assert_same_run(config.run, whole)


def test_kill_9_loses_nothing_but_the_steps_since_the_last_save(whole, data, compiled, tmp_path):
    config = tiny(tmp_path / "run", data, **LONG | {"save_every": 1})
    moments = random.Random(0)
    logged = 0
    for _ in range(3):
        with started(config, compiled) as process:
            wait_for_step(process, config.run, logged + 3)
            time.sleep(moments.uniform(0, 0.2))  # saving takes about as long
            process.kill()
            process.wait()
        logged = metrics(config.run)[-1]["step"]
        # A step is saved in the background: whole when the one after the next begins to be.
        _, step = load_variables(config.run / "checkpoints", "last")
        assert logged - 2 <= step <= logged + 1
    with started(config, compiled) as process:
        finish(process)
    _assert_same_run(config.run, whole)
