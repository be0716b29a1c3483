"""Evaluation over a whole split."""

import functools
from collections.abc import Callable
from typing import Any

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
    threads: int = 4,
) -> Callable[..., Any]:
    """A function that evaluates variables over a whole split, each example counted exactly once.

    Args:
      task: e.g. a `SemanticTask`.
      model: the Flax module.
      source: the split.
      parallel: how the work is spread.
      batch_size: examples a step, over all devices and hosts.
      threads: that read images.

    Returns:
      `variables -> metric` on the host, the same in every process; the variables as
      `parallel.place` gives them. With `track` it iterates over `track(batches)`, which may show
      how far it is.
    """
    step = parallel.eval_step(
        make_eval_step(task, model, render=source.render, axis_name=parallel.axis_name)
    )

    def evaluate(variables, *, track=lambda batches: batches):
        batches = eval_batches(
            source,
            batch_size=batch_size,
            threads=threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        metrics = (jax.tree.map(to_host, step(variables, batch)) for batch in track(batches))
        return functools.reduce(lambda metric, more: metric.merge(more), metrics)

    return evaluate


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
