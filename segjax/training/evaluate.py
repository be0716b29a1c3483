"""Evaluation of a model on a whole split."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from segjax.data import Source, eval_batches
from segjax.tasks import Task
from segjax.training.parallel import Parallel
from segjax.training.step import make_eval_step


def make_evaluate(
    task: Task,
    model: nn.Module,
    source: Source,
    parallel: Parallel,
    *,
    batch_size: int,
    canvases: int = 3,
    threads: int = 4,
) -> Callable[..., "Evaluation"]:
    """Makes a function that evaluates a model on a whole split, counting each example once.

    Args:
      task: Task, such as a `SemanticTask`.
      model: Flax module.
      source: Split to evaluate on.
      parallel: How the work is distributed over devices.
      batch_size: Number of examples per step, over all devices and hosts.
      canvases: Maximum number of different sizes that images are padded to, as in
        `data.eval_batches`. If padding would change the predictions, images keep their sizes.
      threads: Number of threads that read images.

    Returns:
      Function `(variables, *, track, examples) -> Evaluation`, with variables placed by
      `parallel.place`. `track(batches)` may report progress while it passes the batches on.
      `examples` is the number of examples of this process whose predictions are kept.
    """
    if not task.canvas_invariant(model):
        canvases = 0
    step = parallel.eval_step(
        make_eval_step(task, model, render=source.render, axis_name=parallel.axis_name)
    )

    def evaluate(variables, *, track=lambda batches: batches, examples=0):
        batches = eval_batches(
            source,
            batch_size=batch_size,
            canvases=canvases,
            threads=threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        numbers = batches.numbers()
        places = np.linspace(0, len(numbers) - 1, min(examples, len(numbers))).astype(int)
        wanted, found, metric = set(numbers[places].tolist()), {}, None
        for batch in track(batches):
            more, predictions = step(variables, batch)
            more = jax.tree.map(to_host, more)
            metric = more if metric is None else metric.merge(more)
            for place, number in enumerate(batch.index.tolist()):
                if number in wanted and number not in found:
                    found[number] = parallel.example(predictions, place)
        return Evaluation(metric, found)

    return evaluate


class Evaluation(NamedTuple):
    """Result of an evaluation.

    Attributes:
      metric: Metric over all examples, on the host; the same in every process.
      predictions: Predictions of the requested examples by their index in the source, as NumPy
        arrays, including padding.
    """

    metric: Any
    predictions: dict[int, Any]


def to_host(x: jax.Array) -> np.ndarray:
    """Copies an array of a metric to the host, with 64 bits instead of 32.

    A data set can have more pixels than int32 can count.

    Args:
      x: Array of any shape.

    Returns:
      NumPy array: int64 for int32, float64 for float32, any other dtype unchanged.
    """
    array = np.asarray(x)
    wide = {"int32": np.int64, "float32": np.float64}.get(array.dtype.name, array.dtype)
    return array.astype(wide)
