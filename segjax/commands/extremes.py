"""Which images of a split a model does best and worst with, and pictures of them."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np

from segjax import viz
from segjax.commands.trained import TrainedModel
from segjax.data import Source, eval_batches
from segjax.training.evaluate import to_host
from segjax.training.step import make_eval_step


def judge_images(
    trained: TrainedModel, source: Source, *, threads: int = 4
) -> tuple[np.ndarray, Any]:
    """The score of each image by itself, and the metric of all together.

    An image's score is what the task's own would be if the split held it alone. Images in which
    there is nothing to judge have none.

    Args:
      trained: the model.
      source: the split.
      threads: that read images.

    Returns:
      The scores `[len(source)]`, NaN where there is none, and the metric on the host.
    """
    task = trained.task
    variables = jax.device_put(trained.variables)
    step = jax.jit(make_eval_step(task, trained.model, render=source.render))
    scores, total = np.full(len(source), np.nan), None
    for batch in eval_batches(source, batch_size=1, threads=threads):
        metric = jax.tree.map(to_host, step(variables, batch))
        if any(np.any(count) for count in jax.tree.leaves(metric)):
            scores[batch.index] = task.summary(metric, source.classes)[task.score]
        total = metric if total is None else total.merge(metric)
    scores[scores < 0] = np.nan  # as COCO says that there is no object
    return scores, total


def write_extremes(
    folder: pathlib.Path, trained: TrainedModel, source: Source, scores: np.ndarray
) -> dict[str, int]:
    """Writes `best.png`, `median.png` and `worst.png`.

    Args:
      folder: for the pictures; made if missing.
      trained: the model.
      source: the split.
      scores: of its images, from `judge_images`.

    Returns:
      By name the example's number in the source.

    Raises:
      ValueError: if no image has a score.
    """
    task, model = trained.task, trained.model
    ranked = np.argsort(scores)[: np.isfinite(scores).sum()]
    if not ranked.size:
        raise ValueError(f"no image of the {len(source)} has anything that can be judged")

    folder.mkdir(parents=True, exist_ok=True)
    variables = jax.device_put(trained.variables)
    predict = jax.jit(functools.partial(task.predict, model))
    places = {"best": -1, "median": ranked.size // 2, "worst": 0}
    found = {name: int(ranked[place]) for name, place in places.items()}
    for name, index in found.items():
        record = source[index]
        prediction = jax.device_get(predict(variables, record.require("image")[None]))
        prediction = jax.tree.map(lambda x: x[0], prediction)
        row = task.draw(record, prediction, source.classes)
        viz.save_image(folder / f"{name}.png", viz.page([row], source.classes))
    return found
