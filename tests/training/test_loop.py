"""Whole runs: what they leave, that they go on exactly, and that they stop where they must."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from runs import losses, metrics, saved_state, saved_steps, tiny

from segjax.objectives import PixelObjective
from segjax.training import Callback, OptimizerConfig, train
from segjax.training.build import make_model, make_task
from segjax.training.checkpoint import load_variables
from segjax.training.evaluate import make_evaluate
from segjax.training.loop import open_config_source
from segjax.training.parallel import Parallel
from segjax.training.run_folder import read_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data, compiled):
    """An uninterrupted run, and the metrics that it returned."""
    config = tiny(tmp_path_factory.mktemp("whole") / "run", data)
    return config.run, train(config)


@pytest.fixture
def stop_after(monkeypatch):
    """Makes the next run stop after a step, as SIGTERM does, until told otherwise."""
    stops = []

    @contextlib.contextmanager
    def requests():
        yield lambda step: step in stops

    monkeypatch.setattr("segjax.training.processes.stop_requests", requests)
    return lambda *steps: stops.__setitem__(slice(None), steps)


def test_a_run_leaves_all_there_is_to_know(whole):
    run, final = whole
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "tensorboard", "checkpoints"}
    assert names >= {"evaluation.json", "curves.png", "predictions.png"}
    assert json.loads((run / "evaluation.json").read_text()) == final
    rows = metrics(run)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 9))
    assert [row["step"] for row in rows if "val/mean_iou" in row] == [2, 4, 6, 8]
    assert rows[-1] == {"step": 8} | {f"val/{name}": value for name, value in final.items()}


def test_training_learns(whole):
    run, _ = whole
    assert losses(run)[-1] < 0.8 * losses(run)[0]


def test_the_best_and_the_last_checkpoint_are_the_best_and_the_last(whole, data):
    run, final = whole
    scores = {row["step"]: row for row in metrics(run) if "val/mean_iou" in row}
    ranked = sorted(scores, key=lambda step: -scores[step]["val/mean_iou"])  # the first of equals
    best = ranked[0]
    assert saved_steps(run, "best") == sorted(ranked[:2])
    assert saved_steps(run, "last") == [8]

    info = read_config(run)
    source = open_config_source(info.config, "val")
    task = make_task(info.config, source.classes)
    model = make_model(info.config, len(source.classes))
    evaluate = make_evaluate(task, model, source, Parallel(), batch_size=8)
    for which, step in (("best", best), ("last", 8)):
        variables, saved = load_variables(run / "checkpoints", which)
        assert saved == step
        metric = evaluate(Parallel().place(variables)).metric
        assert task.summary(metric, source.classes)["mean_iou"] == scores[step]["val/mean_iou"]
    assert final["mean_iou"] == scores[8]["val/mean_iou"]


@pytest.mark.parametrize("part", ["loop._evaluate", "checkpoint.Checkpoints.save_best"])
def test_an_evaluation_that_fails_costs_nothing(whole, data, tmp_path, monkeypatch, part):
    config = tiny(tmp_path / "run", data)

    def fail(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(f"segjax.training.{part}", fail)
        with pytest.raises(MemoryError):
            train(config)
    run, final = whole
    assert train(config) == final
    assert metrics(config.run) == metrics(run)
    assert saved_steps(config.run, "best") == saved_steps(run, "best")


@pytest.mark.parametrize("stops", [(4,), (1, 5, 6)])
def test_a_run_goes_on_bit_for_bit(whole, data, tmp_path, stop_after, stops):
    config = tiny(tmp_path / "run", data)
    for stop in stops:
        stop_after(stop)
        assert train(config) == {}
        assert saved_steps(config.run) == [stop]
        assert metrics(config.run)[-1]["step"] == stop
    stop_after()
    run, final = whole
    assert train(config) == final
    assert metrics(config.run) == metrics(run)
    jax.tree.map(assert_array_equal, saved_state(config.run), saved_state(run))
    assert saved_steps(config.run, "best") == saved_steps(run, "best")


@pytest.mark.parametrize(
    "ways",
    [
        ({"parallel": "pmap"}, {"parallel": "mesh", "fsdp": 2}),
        ({"parallel": "mesh", "fsdp": 4}, {"parallel": "pmap"}),
    ],
    ids=["pmap, then mesh", "mesh, then pmap"],
)
def test_a_checkpoint_goes_on_under_the_other_way_to_run(whole, data, tmp_path, stop_after, ways):
    first, second = (tiny(tmp_path / "run", data, **way) for way in ways)
    stop_after(4)
    train(first)
    stop_after()
    train(second)
    assert_allclose(losses(second.run), losses(whole[0]), rtol=1e-4)


def test_a_finished_run_only_reports_again(whole, capsys):
    run, final = whole
    before = metrics(run)
    assert train(read_config(run).config) == final
    assert metrics(run) == before
    assert "frequency weighted IoU" in capsys.readouterr().out


def test_a_callback_sees_what_the_log_has_and_ends_the_training(data, tmp_path, stop_after):
    class Recorder(Callback):
        def __init__(self):
            self.steps, self.seen, self.final, self.closed = [], [], None, 0

        def on_start(self, config, classes, step):
            self.steps.append(step)

        def on_metrics(self, step, metrics):
            self.seen.append(step)

        def on_evaluation(self, step, metrics):
            self.seen.append(f"evaluation {step}")
            return step == 4

        def on_end(self, metrics):
            self.final = metrics

        def close(self):
            self.closed += 1

    config, recorder = tiny(tmp_path / "run", data, keep_every=2), Recorder()
    stop_after(3)
    assert train(config, callbacks=[recorder]) == {}
    assert (recorder.final, recorder.closed) == (None, 1)
    stop_after()
    final = train(config, callbacks=[recorder])
    assert recorder.steps == [0, 3]
    assert recorder.seen == [1, 2, "evaluation 2", 3, 4, "evaluation 4"]
    assert (recorder.final, recorder.closed) == (final, 2)
    assert saved_steps(config.run) == [2, 4]
    assert (config.run / "predictions.png").exists()


def test_without_a_better_score_for_long_the_training_ends(data, tmp_path):
    still = OptimizerConfig(name="sgd", learning_rate=1e-30, schedule="constant", warmup=0)
    config = tiny(
        tmp_path / "run",
        data,
        optimizer=still,
        average_decay=0.0,
        eval_every=1,
        patience=2,
        model_options={"widths": "(4, 8)", "norm": "none"},
    )
    final = train(config)
    assert metrics(config.run)[-1]["step"] == 3
    assert train(config) == final  # and ends there when it is started again
    assert saved_steps(config.run) == [3]


def test_a_folder_of_another_run_is_refused(whole):
    config = dataclasses.replace(read_config(whole[0]).config, seed=7)
    with pytest.raises(ValueError, match=r"\(seed 0\), got seed 7"):
        train(config)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(data, tmp_path):
    config = tiny(
        tmp_path / "run",
        data,
        optimizer=OptimizerConfig(
            name="sgd", learning_rate=1e38, schedule="constant", warmup=3, weight_decay=0.0
        ),
        save_every=1,
    )
    # Warm-up starts at 0: the first step changes nothing, the second ruins the parameters.
    with pytest.raises(FloatingPointError, match=r"^step 3: expected finite .*; first in the \w+"):
        train(config)
    (step,) = saved_steps(config.run)
    assert step <= 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(saved_state(config.run)))
    with pytest.raises(FloatingPointError, match=r"^step 3:"):
        train(config)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "unet_tny"}, "unet_tny.*unet_tiny"),
        ({"batch_size": 12}, "batch_size: expected a multiple of 8"),
        (
            {"objective": PixelObjective(class_weights=(1.0,))},
            r"objective\.class_weights: expected 3 weights, .*got 1",
        ),
        ({"device": "gpu"}, "device: expected gpu, got cpu"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(data, tmp_path, changes, told):
    with pytest.raises(ValueError, match=told):
        train(tiny(tmp_path / "run", data, **changes))
