"""Two processes as one program: they train, evaluate, stop, save and go on as one process does."""

import concurrent.futures
import contextlib
import dataclasses
import signal
import socket

import pytest
from numpy.testing import assert_allclose
from runs import finish, losses, metrics, saved_steps, started, tiny, wait_for_step

from segjax.training import OptimizerConfig

pytestmark = pytest.mark.slow


# No compilation cache: JAX lets only process 0 write to it, and while the other compiles it would
# wait at the first collective, longer than gloo allows on a busy machine (30 s).
ENVIRONMENT = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, data):
    """The same global batches in one process of four devices."""
    config = _config(tmp_path_factory.mktemp("one") / "run", data, steps=12, eval_every=6)
    with started(config, ENVIRONMENT, devices=4) as process:
        finish(process)
    return config.run


@contextlib.contextmanager
def _two(config):
    """Both processes of a run, with two devices each."""
    with socket.socket() as free, contextlib.ExitStack() as stack:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
        free.close()
        yield [
            stack.enter_context(
                started(
                    dataclasses.replace(
                        config,
                        distributed=True,
                        coordinator=address,
                        num_processes=2,
                        process_id=i,
                    ),
                    ENVIRONMENT,
                    devices=2,
                )
            )
            for i in (0, 1)
        ]


def _config(run, data, **changes):
    """A rate at which rounding in another order does not grow from step to step."""
    slow = OptimizerConfig(name="sgd", learning_rate=0.01, schedule="constant", warmup=0)
    return tiny(run, data, optimizer=slow, **changes)


def _finish(processes):
    """What they printed; both are read at once, so that neither waits for its reader."""
    with concurrent.futures.ThreadPoolExecutor() as threads:
        return list(threads.map(finish, processes))


@pytest.mark.parametrize(
    "way", [{"parallel": "pmap"}, {"parallel": "mesh", "fsdp": 2}], ids=["pmap", "mesh"]
)
def test_two_processes_are_one(one_process, data, tmp_path, way):
    config = _config(tmp_path / "run", data, steps=12, eval_every=6, **way)
    with _two(config) as processes:
        wait_for_step(processes[0], config.run, 2)
        processes[1].send_signal(signal.SIGTERM)  # one is enough: they agree on the step
        outputs = _finish(processes)
    (step,) = saved_steps(config.run)
    assert 2 <= step < 12
    assert f"stopped after step {step}" in outputs[0]

    with _two(config) as processes:
        first, second = _finish(processes)
    assert f"from step {step}" in first
    assert "step" not in second  # only process 0 speaks, and writes
    assert len(list((config.run / "tensorboard").iterdir())) == 2  # one for each start
    rows, expected = metrics(config.run), metrics(one_process)
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    assert_allclose(losses(config.run), losses(one_process), rtol=1e-5, atol=1e-5)
    for row, due in zip(rows, expected, strict=True):
        if "val/mean_iou" in due:
            assert row["val/mean_iou"] == pytest.approx(due["val/mean_iou"], abs=0.01)
