"""Training from a configuration: data, model, steps, evaluations, checkpoints and logs."""

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

_EXAMPLES = 4  # that the report shows


def train(config: TrainConfig, *, callbacks: Sequence[Callback] = ()) -> dict[str, float]:
    """Trains, or resumes training, and leaves all there is to know in the folder `config.run`.

    There: `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `evaluation.json` and the
    pictures `curves.png` and `predictions.png`. SIGTERM saves after the current step and returns;
    the same configuration then resumes from there, with the numbers of an uninterrupted run.

    Args:
      config: of the run.
      callbacks: what happens beside it, in this order, after the trackers of the configuration.

    Returns:
      The metrics of the last evaluation (see the task's `summary`); empty where SIGTERM came.

    Raises:
      ValueError: for a configuration that cannot be, data that does not fit, or a run folder that
        holds another run.
      OSError: where another process trains in the folder, a file cannot be written, or the
        checkpoint is damaged; it names it.
      FloatingPointError: at a loss or gradient that is not finite; it says the step and where. The
        last checkpoint is from before.
    """
    processes.start(config)  # first: a check that traces a model would use a device
    config = resolve(config)
    check(config)
    check_devices(config)
    with locked(config.run):
        return _train(config, callbacks)


def _train(config: TrainConfig, callbacks: Sequence[Callback]) -> dict[str, float]:
    """Trains in a folder that no other process writes to."""
    say(f"opening {config.data}")
    source, eval_source = (
        open_config_source(
            config, split, progress=functools.partial(track, title=f"checking {split}")
        )
        for split in (config.train_split, config.eval_split)
    )
    say(
        f"{len(source)} images to train on ({config.train_split}), {len(eval_source)} to evaluate "
        f"({config.eval_split}), {len(source.classes)} classes"
    )
    check_sources(config, source, eval_source)
    run = _Run.create(config, source, eval_source)
    write_config(config, source.classes, source.channels)  # of a run that can be

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
        exits.callback(checkpoints.close)  # so that a step is saved also where its evaluation fails
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
            say(f"stopped after step {stopped_at} and saved; run the same command to resume")
            return {}
        if jax.process_index() == 0:
            say("drawing curves.png and predictions.png")
            write_report(config.run, run.figures, eval_source, run.task, run.predictions)
        for callback in callbacks:
            callback.on_end(run.figures)
    return run.figures


@dataclasses.dataclass
class _Run:
    """The parts of a run, compiled for its devices, and what changes as it goes."""

    task: Task
    train_step: Callable[[TrainState, Record], tuple[TrainState, Metrics]]
    evaluate: Callable[..., tuple[dict[str, float], dict[int, Any]]]
    explain: Callable[[TrainState, Record], str]
    batches: Any
    state: TrainState
    best: float = -math.inf
    waited: int = 0  # evaluations since the best one
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
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
        _check_fit(task, model, state.variables, eval_source)
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
            explain=lambda state, batch: find_non_finite(
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
    """Takes the steps that are left. Returns the step after which it was asked to stop, if any."""

    def is_over(step):
        """Evaluates the state after a step, and says whether the training ends with it."""
        _evaluate(run, step, checkpoints, logger)
        ends = [callback.on_evaluation(step, run.figures) for callback in callbacks]
        if any(ends):
            logger.say(f"a callback ends the training after step {step}")
        if config.patience is not None and run.waited >= config.patience:
            logger.say(f"{run.waited} evaluations without a better {run.task.score}: step {step}")
            return True
        return any(ends)

    start = int(run.state.step)
    # It may have been stopped between the saving of this step and its evaluation.
    if start and _evaluates(config, start) and is_over(start):
        return None
    schedule = learning_rate(config.optimizer, config.steps)
    pending = None
    for step in range(start + 1, config.steps + 1):
        if step == start + 1:
            logger.say("compiling the training step (first time; kept for the next start)")
            clock = _Clock(start)
        batch = next(run.batches)
        run.state, metrics = run.train_step(run.state, batch)
        if step == start + 1:
            jax.block_until_ready(metrics)
            logger.say(f"step {step} is done, {clock.seconds():.0f} s after its start")
            clock = _Clock(step)
        # Looked at one step late, so that the devices have work while the host waits. Nothing is
        # lost: after a step that was not finite the state no longer changes.
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
        if saving:  # first: an evaluation that fails must not cost the step
            position = {
                "batches": run.batches.get_state(),
                "best": run.best,
                "waited": run.waited,
            }
            checkpoints.save(run.state, position)
        if stopping and step < config.steps:
            return step
        if evaluating:
            if is_over(step):
                return None
            clock = _Clock(step)
    return None


def _evaluates(config: TrainConfig, step: int) -> bool:
    return step % config.eval_every == 0 or step == config.steps


def _evaluate(run: _Run, step: int, checkpoints: Checkpoints, logger: Logger) -> None:
    """Evaluates the state after a step, and saves it if it is one of the best ones."""
    follow = functools.partial(logger.track, title="evaluating")
    run.figures, run.predictions = run.evaluate(run.state, track=follow, examples=_EXAMPLES)
    logger.log(step, {f"val/{name}": value for name, value in run.figures.items()})
    score = run.figures[run.task.score]
    run.best, run.waited = (score, 0) if score > run.best else (run.best, run.waited + 1)
    checkpoints.save_best(run.state, score)


def _check_finite(run: _Run, step: int, batch: Record, metrics: Metrics) -> None:
    if bool(metrics["finite"]):
        return
    bad = [n for n, v in metrics.items() if n != "finite" and not np.isfinite(float(v))]
    place = run.explain(fetch(run.state), batch)
    raise FloatingPointError(f"step {step}: {', '.join(bad)} not finite; first in {place}")


class _Clock:
    """Steps a second since it was last asked."""

    def __init__(self, step: int):
        self._step, self._time = step, time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._time

    def steps_per_second(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._step) / (now - self._time)
        self._step, self._time = step, now
        return rate


# Which options each kind of data takes.
_OPTIONS = {
    "folder": ("void", "max_value"),
    "coco": ("strict", "max_value"),
    "coco_panoptic": ("max_value",),
    "tfds": ("void", "max_value"),
}


def open_config_source(
    config: TrainConfig, split: str, *, progress: Callable[[Sequence], Iterable] = iter
) -> Source:
    """The split of a configuration's data.

    Args:
      config: of the run.
      split: its name.
      progress: passes on what is checked, one at a time, and may show how far that is.

    Returns:
      The source.

    Raises:
      ValueError: where it cannot be opened; it says what is wrong with which file.
    """
    spec = full_spec(config.data)
    if spec.startswith("synthetic"):
        style = {"style": config.scenes} if spec == "synthetic" else {}
        return open_source(spec, split, shape=config.size, seed=config.seed, **style)
    taken = _OPTIONS.get(spec.partition(":")[0], ())
    options = {name: getattr(config, name) for name in taken}
    return open_source(spec, split, progress=progress, **options)


def canvas_shape(config: TrainConfig, source: Source) -> tuple[int, int]:
    """What is read of an image: as much as a crop can show at the least zoom.

    Args:
      config: of the run.
      source: of the images.

    Returns:
      (height, width) in pixels after `scale`; no more than the largest image has.
    """
    largest = np.ceil(source.sizes.max(0) * config.scale)
    needed = np.ceil(np.array(config.size) / min(1.0, config.augmentation.zoom[0]))
    height, width = np.minimum(np.maximum(largest, 1), needed).astype(int)
    return int(height), int(width)


def _check_fit(task: Task, model: nn.Module, variables: dict, source: Source) -> None:
    """Traces the judging of one example: the task says what of model or data it has no use for."""
    example = next(iter(eval_batches(source, batch_size=1, threads=1)))
    jax.eval_shape(make_eval_step(task, model, render=source.render), variables, example)
