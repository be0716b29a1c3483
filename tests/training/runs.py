"""Runs of training that take seconds, in this process and in others, and what they leave behind."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time

import cv2
import numpy as np
import orbax.checkpoint as ocp

from segjax.training import OptimizerConfig, SemanticConfig
from segjax.training.config import to_dict

COLOURS = np.array([[60, 90, 120], [200, 60, 60], [60, 200, 80]])
DRIVER = """
import json, sys
from segjax.training import train
from segjax.training.resolve import parse_config
train(parse_config(json.loads(sys.argv[1])))
"""
PATIENCE = 300  # seconds after which a process that does nothing counts as hanging


def write_data(folder):
    """A noisy box on a noisy ground; some pixels are void, the more the higher the number."""
    rng = np.random.default_rng(0)
    for split, examples in (("train", 12), ("val", 5)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(examples):
            labels = np.zeros((36, 40), np.uint8)
            y, x = rng.integers(4, 20, 2)
            labels[y : y + 12, x : x + 14] = rng.integers(1, 3)
            image = (COLOURS[labels] + rng.normal(0, 30, (36, 40, 3))).clip(0, 255)
            labels[rng.random(labels.shape) < i / 20] = 255
            cv2.imwrite(str(folder / split / "images" / f"{i}.png"), image.astype(np.uint8))
            cv2.imwrite(str(folder / split / "masks" / f"{i}.png"), labels)
    (folder / "classes.json").write_text(json.dumps(["ground", "red", "green"]))
    return folder


def tiny(run, data, **changes):
    """The configuration of a tiny run."""
    options = {
        "run": run,
        "data": f"folder:{data}",
        "model_options": {"widths": "(4, 8)"},
        "size": (32, 32),
        "steps": 8,
        "batch_size": 8,
        "optimizer": OptimizerConfig(name="sgd", learning_rate=0.05, schedule="constant", warmup=0),
        "average_decay": 0.5,
        "eval_every": 2,
        "save_every": 3,
        "keep_best": 2,
        "log_every": 1,
        "threads": 1,
    }
    return SemanticConfig(**options | changes)


@contextlib.contextmanager
def started(config, environment, *, devices=1):
    """Another process that trains, with so many devices; it never outlives the block."""
    flags = os.environ["XLA_FLAGS"]  # of several counts of devices the last one holds
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(to_dict(config))],
        env=os.environ
        | environment
        | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process):
    """Waits for a process, and returns what it printed; it must end well."""
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def wait_for_step(process, run, step):
    """Waits until the log has come to a step."""
    deadline = time.monotonic() + PATIENCE
    while not (rows := metrics(run)) or rows[-1]["step"] < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"step {step} was not reached"
        time.sleep(0.01)


def metrics(run):
    """The rows of the log, without what depends on the clock."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{k: v for k, v in row.items() if k != "examples_per_second"} for row in rows]


def losses(run):
    """The loss of each step."""
    return np.array([row["loss"] for row in metrics(run) if "loss" in row])


def saved_steps(run, which="last"):
    """The steps of the whole checkpoints that a run has."""
    folder = run / "checkpoints" / which
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def saved_state(run, which="last"):
    """The whole of a saved state, as NumPy arrays."""
    (step,) = saved_steps(run, which)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((run / "checkpoints" / which / str(step) / "state").absolute())


@contextlib.contextmanager
def full_disk(room=1000):
    """No file may become larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
