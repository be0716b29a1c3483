"""Evaluation over a whole split."""

from collections.abc import Callable

import jax
import numpy as np
from flax import linen as nn

from segjax.data import Source, eval_batches
from segjax.training.parallel import Parallel
from segjax.training.step import make_eval_step


def make_evaluate(
    task,
    model: nn.Module,
    source: Source,
    parallel: Parallel,
    *,
    batch_size: int,
    threads: int = 4,
) -> Callable[[dict], np.ndarray]:
    """A function that evaluates variables over a whole split, each example counted exactly once.

    Args:
      task: gives `predict` and `confusion`.
      model: the Flax module.
      source: the split.
      parallel: how the work is spread.
      batch_size: examples a step, over all devices and hosts.
      threads: that read images.

    Returns:
      `variables -> confusion matrix`, int64 `[classes, classes]`, the same in every process; the
      variables as `parallel.place` gives them.
    """
    step = parallel.eval_step(
        make_eval_step(task, model, render=source.render, axis_name=parallel.axis_name)
    )

    def evaluate(variables):
        batches = eval_batches(
            source,
            batch_size=batch_size,
            threads=threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        # Summed on the host: a data set can hold more pixels than int32 counts.
        matrices = (np.asarray(step(variables, batch), np.int64) for batch in batches)
        return sum(matrices, np.zeros((task.num_classes,) * 2, np.int64))

    return evaluate
