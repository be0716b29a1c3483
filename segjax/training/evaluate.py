"""Evaluation over a whole split."""

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
    """A function that evaluates variables over a whole split, each example counted exactly once.

    Args:
      task: e.g. a `SemanticTask`.
      model: the Flax module.
      source: the split.
      parallel: how the work is spread.
      batch_size: examples a step, over all devices and hosts.
      canvases: the most sizes that images are padded to, as in `data.eval_batches`; each keeps its
        own where what the task predicts with the model would depend on it.
      threads: that read images.

    Returns:
      `variables -> Evaluation`; the variables as `parallel.place` gives them. With `track` it
      iterates over `track(batches)`, which may show how far it is. With `examples` it keeps the
      predictions of so many examples, spread over those that this process reads.
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
    """What evaluating a split gives.

    Attributes:
      metric: of all examples, on the host, the same in every process.
      predictions: by number in the source, of the examples that are asked for, on their canvases;
        NumPy arrays.
    """

    metric: Any
    predictions: dict[int, Any]


def to_host(x: jax.Array) -> np.ndarray:
    """With room for sums over a whole data set, which can hold more pixels than int32 counts.

    Args:
      x: an array of a metric.

    Returns:
      On the host: int64 instead of int32, float64 instead of float32.
    """
    array = np.asarray(x)
    wide = {"int32": np.int64, "float32": np.float64}.get(array.dtype.name, array.dtype)
    return array.astype(wide)
