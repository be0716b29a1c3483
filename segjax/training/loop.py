"""Training from a configuration: data, model, training steps, evaluations, checkpoints and logs."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from segjax.data import Source, eval_batches, open_source, train_batches
from segjax.data.spec import full_spec
from segjax.tasks import Task
from segjax.training import processes
from segjax.training.annealing import anneal_masks
from segjax.training.build import load_weights, make_model, make_task
from segjax.training.callbacks import Callback
from segjax.training.checkpoint import Checkpoints, has_checkpoint
from segjax.training.checks import check, check_devices, check_sources
from segjax.training.config import TrainConfig
from segjax.training.evaluate import make_evaluate
from segjax.training.finite import find_non_finite
from segjax.training.lock import locked
from segjax.training.logging import Logger, say, track
from segjax.training.optimizer import learning_rate, make_optimizer
from segjax.training.parallel import Parallel, fetch, make_mesh
from segjax.training.report import write_report
from segjax.training.resolve import resolve
from segjax.training.run_folder import write_config
from segjax.training.state import TrainState, create_state
from segjax.training.step import Metrics, make_eval_step, make_train_step
from segjax.training.trackers import TRACKERS
from segjax.typing import Record

_EXAMPLES = 4  # predictions in the report


def train(config: TrainConfig, *, callbacks: Sequence[Callback] = ()) -> dict[str, float]:
    """Trains a model, or resumes a training that was stopped.

    The folder `config.run` receives `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`,
    `evaluation.json` and the pictures `curves.png` and `predictions.png`. On SIGTERM the current
    step is finished and saved. Calling `train` again with the same configuration resumes from
    there, with the same results as an uninterrupted run.

    Args:
      config: Configuration of the run.
      callbacks: Callbacks, called in this order, after the trackers of the configuration.

    Returns:
      Metrics of the last evaluation by name, such as `mean_iou`; empty if SIGTERM stopped it.

    Raises:
      ValueError: If the configuration is invalid, does not fit the data, or differs from that of
        the run in the folder.
      OSError: If another process trains in the folder, a file cannot be written, or the checkpoint
        is damaged.
      FloatingPointError: If a loss or gradient is not finite. The message says at which step and
        where in the model. The last checkpoint is from before that step.
    """
    processes.start(config)  # before the checks, which may use a device to trace a model
    config = resolve(config)
    check(config)
    check_devices(config)
    with locked(config.run):
        return _train(config, callbacks)


def _train(config: TrainConfig, callbacks: Sequence[Callback]) -> dict[str, float]:
    """Trains in a locked folder."""
    say(f"opening data: {config.data}")
    source, eval_source = (
        open_config_source(
            config, split, progress=functools.partial(track, title=f"checking {split}")
        )
        for split in (config.train_split, config.eval_split)
    )
    say(
        f"{len(source)} training images ({config.train_split}), {len(eval_source)} evaluation "
        f"images ({config.eval_split}), {len(source.classes)} classes"
    )
    check_sources(config, source, eval_source)
    run = _Run.create(config, source, eval_source)
    write_config(config, source.classes, source.channels)  # now that the run is known to be valid

    checkpoints = Checkpoints(
        config.run / "checkpoints", keep_best=config.keep_best, keep_every=config.keep_every
    )
    if checkpoints.latest_step() is not None:
        run.state, position = checkpoints.restore(run.state)
        run.batches.set_state(position["batches"])
        run.best, run.waited = position["best"], position.get("waited", 0)
    start = int(run.state.step)
    if jax.process_index() == 0:
        callbacks = [*(TRACKERS[name]() for name in config.trackers), *callbacks]
    with contextlib.ExitStack() as exits:
        exits.callback(checkpoints.close)  # so that a step is saved even if its evaluation fails
        for callback in callbacks:
            callback.on_start(config, source.classes, start)
            exits.callback(callback.close)
        with (
            Logger(config.run, start=start, steps=config.steps) as logger,
            processes.stop_requests() as stop,
        ):
            if start:
                logger.say(f"resuming {config.run} from step {start}")
            stopped_at = _fit(config, run, checkpoints, logger, callbacks, stop)
            checkpoints.close()
            run.batches.close()
        if stopped_at is not None:
            say(f"stopped after step {stopped_at} and saved it; run the same command to resume")
            return {}
        if jax.process_index() == 0:
            say("writing evaluation.json, curves.png and predictions.png")
            write_report(config.run, run.metrics, eval_source, run.task, run.predictions)
        for callback in callbacks:
            callback.on_end(run.metrics)
    return run.metrics


@dataclasses.dataclass
class _Run:
    """The parts of a run, and its state."""

    task: Task
    train_step: Callable[[TrainState, Record], tuple[TrainState, Metrics]]
    evaluate: Callable[..., tuple[dict[str, float], dict[int, Any]]]
    find_non_finite: Callable[[TrainState, Record], str]
    batches: Any
    state: TrainState
    best: float = -math.inf  # score
    waited: int = 0  # evaluations since the best one
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    predictions: dict[int, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def create(cls, config: TrainConfig, source: Source, eval_source: Source) -> "_Run":
        parallel = Parallel(make_mesh(fsdp=config.fsdp) if config.parallel == "mesh" else None)
        num_classes = len(source.classes)
        task, model = make_task(config, source.classes), make_model(config, num_classes)
        optimizer = make_optimizer(config.optimizer, config.steps)

        def prepare_one(key, record):
            return config.augmentation(key, source.render(record), shape=config.size)

        def prepare(keys, batch):
            batch = jax.vmap(prepare_one)(keys, batch)
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
            return config.augmentation.mix(keys, batch, things=source.classes.things)

        images = np.zeros((1, *config.size, source.channels), np.float32)
        average = config.average_decay > 0
        variables = None
        if not has_checkpoint(config.run / "checkpoints"):
            variables = load_weights(config, source.classes, source.channels)

        @jax.jit
        def init(key, variables):
            return create_state(key, model, optimizer, images, average=average, variables=variables)

        say(f"{config.model}: initialising the parameters")
        state = parallel.place(jax.device_get(init(jax.random.key(config.seed), variables)))
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        say(f"{config.model}: {count / 1e6:.1f} M parameters")
        _trace_evaluation(task, model, state.variables, eval_source)
        step = make_train_step(
            task,
            model,
            optimizer,
            prepare=prepare,
            accumulate=config.accumulate,
            average_decay=config.average_decay,
            axis_name=parallel.axis_name,
        )
        evaluate = make_evaluate(
            task,
            model,
            eval_source,
            parallel,
            batch_size=config.eval_batch_size,
            canvases=config.eval_canvases,
            threads=config.threads,
        )
        batches = train_batches(
            source,
            batch_size=config.batch_size,
            shape=canvas_shape(config, source),
            scale=config.scale,
            seed=config.seed,
            workers=config.workers,
            threads=config.threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

        def annealed_step(state, batch):
            return step(anneal_masks(state, config.steps), batch)

        def evaluate_state(state, **options):
            metric, predictions = evaluate(state.variables, **options)
            return task.summary(metric, source.classes), predictions

        return cls(
            task=task,
            train_step=parallel.train_step(annealed_step, state),
            evaluate=evaluate_state,
            find_non_finite=lambda state, batch: find_non_finite(
                task, model, state, batch, prepare=prepare
            ),
            batches=iter(batches),
            state=state,
        )


def _fit(
    config: TrainConfig,
    run: _Run,
    checkpoints: Checkpoints,
    logger: Logger,
    callbacks: Sequence[Callback],
    stop: Callable[[int], bool],
) -> int | None:
    """Takes the remaining steps. Returns the step after which SIGTERM stopped it, if it did."""

    def evaluate_and_decide(step):
        """Evaluates the state after a step, and returns whether the training ends here."""
        _evaluate(run, step, checkpoints, logger)
        ends = [callback.on_evaluation(step, run.metrics) for callback in callbacks]
        if any(ends):
            logger.say(f"a callback ended the training after step {step}")
        if config.patience is not None and run.waited >= config.patience:
            logger.say(
                f"no better {run.task.score} in {run.waited} evaluations: the training ends after "
                f"step {step}"
            )
            return True
        return any(ends)

    start = int(run.state.step)
    # The run may have been stopped after this step was saved and before it was evaluated.
    if start and _evaluates(config, start) and evaluate_and_decide(start):
        return None
    schedule = learning_rate(config.optimizer, config.steps)
    pending = None
    for step in range(start + 1, config.steps + 1):
        if step == start + 1:
            logger.say("compiling the training step (cached for later runs)")
            clock = _Clock(start)
        batch = next(run.batches)
        run.state, metrics = run.train_step(run.state, batch)
        if step == start + 1:
            jax.block_until_ready(metrics)
            logger.say(f"compiled in {clock.seconds():.0f} s, including step {step}")
            clock = _Clock(step)
        # Checked one step late, so that the devices work while the host waits. No harm is done:
        # after a step that was not finite the state no longer changes.
        if pending is not None:
            _check_finite(run, *pending)
        pending = step, batch, metrics

        stopping = stop(step)
        logging = step % config.log_every == 0
        evaluating = _evaluates(config, step)
        saving = step % config.save_every == 0 or step == config.steps or stopping or evaluating
        if logging or evaluating or saving:
            _check_finite(run, *pending)
        if logging:
            row = {name: float(value) for name, value in metrics.items() if name != "finite"}
            row["learning_rate"] = float(schedule(step - 1))
            row["examples_per_second"] = clock.steps_per_second(step) * config.batch_size
            logger.log(step, row)
            for callback in callbacks:
                callback.on_metrics(step, row)
        if saving:  # before the evaluation, which may fail
            position = {
                "batches": run.batches.get_state(),
                "best": run.best,
                "waited": run.waited,
            }
            checkpoints.save(run.state, position)
        if stopping and step < config.steps:
            return step
        if evaluating:
            if evaluate_and_decide(step):
                return None
            clock = _Clock(step)
    return None


def _evaluates(config: TrainConfig, step: int) -> bool:
    return step % config.eval_every == 0 or step == config.steps


def _evaluate(run: _Run, step: int, checkpoints: Checkpoints, logger: Logger) -> None:
    """Evaluates the state after a step, and saves it if it is one of the best ones."""
    follow = functools.partial(logger.track, title="evaluating")
    run.metrics, run.predictions = run.evaluate(run.state, track=follow, examples=_EXAMPLES)
    logger.log(step, {f"val/{name}": value for name, value in run.metrics.items()})
    score = run.metrics[run.task.score]
    run.best, run.waited = (score, 0) if score > run.best else (run.best, run.waited + 1)
    checkpoints.save_best(run.state, score)


def _check_finite(run: _Run, step: int, batch: Record, metrics: Metrics) -> None:
    if bool(metrics["finite"]):
        return
    bad = [n for n, v in metrics.items() if n != "finite" and not np.isfinite(float(v))]
    place = run.find_non_finite(fetch(run.state), batch)
    raise FloatingPointError(
        f"step {step}: expected finite numbers, got NaN or infinity in {', '.join(bad)}; first in "
        f"{place}"
    )


class _Clock:
    """Measures steps per second since the last measurement."""

    def __init__(self, step: int):
        self._step, self._time = step, time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._time

    def steps_per_second(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._step) / (now - self._time)
        self._step, self._time = step, now
        return rate


# The options of each kind of data set.
_OPTIONS = {
    "folder": ("void", "max_value"),
    "coco": ("strict", "max_value"),
    "coco_panoptic": ("max_value",),
    "tfds": ("void", "max_value"),
}


def open_config_source(
    config: TrainConfig, split: str, *, progress: Callable[[Sequence], Iterable] = iter
) -> Source:
    """Opens a split of the data set of a configuration.

    Args:
      config: Configuration of the run.
      split: Name of the split.
      progress: Function that passes on the files that are checked and may report progress.

    Returns:
      The source of examples.

    Raises:
      ValueError: If the data set cannot be opened. The message names the file.
    """
    spec = full_spec(config.data)
    if spec.startswith("synthetic"):
        style = {"style": config.scenes} if spec == "synthetic" else {}
        return open_source(spec, split, shape=config.size, seed=config.seed, **style)
    names = _OPTIONS.get(spec.partition(":")[0], ())
    options = {name: getattr(config, name) for name in names}
    return open_source(spec, split, progress=progress, **options)


def canvas_shape(config: TrainConfig, source: Source) -> tuple[int, int]:
    """The part of an image that is read for training: what a crop can cover at the smallest zoom.

    Args:
      config: Configuration of the run.
      source: Source of the images.

    Returns:
      (height, width) in pixels after `scale`, at most the size of the largest image.
    """
    largest = np.ceil(source.sizes.max(0) * config.scale)
    needed = np.ceil(np.array(config.size) / min(1.0, config.augmentation.zoom[0]))
    height, width = np.minimum(np.maximum(largest, 1), needed).astype(int)
    return int(height), int(width)


def _trace_evaluation(task: Task, model: nn.Module, variables: dict, source: Source) -> None:
    """Traces the evaluation of one example, so that a task refuses the wrong model or data now."""
    example = next(iter(eval_batches(source, batch_size=1, threads=1)))
    jax.eval_shape(make_eval_step(task, model, render=source.render), variables, example)
