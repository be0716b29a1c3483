"""Which images of a split a model does best and worst with, and pictures of them."""

import functools
import pathlib

import jax
import numpy as np

from segjax import viz
from segjax.commands.trained import TrainedModel
from segjax.data import Source, eval_batches
from segjax.training.step import make_eval_step


def write_extremes(
    folder: pathlib.Path, trained: TrainedModel, source: Source, *, threads: int = 4
) -> dict[str, tuple[int, float]]:
    """Writes `best.png`, `median.png` and `worst.png`, each image judged by itself.

    An image's score is what the task's own would be if the split held it alone. Images in which
    there is nothing to judge have none.

    Args:
      folder: for the pictures; made if missing.
      trained: the model.
      source: the split.
      threads: that read images.

    Returns:
      By name the example's number in the source, and its score.

    Raises:
      ValueError: if there is nothing to judge in any image.
    """
    task, model = trained.task, trained.model
    variables = jax.device_put(trained.variables)
    step = jax.jit(make_eval_step(task, model, render=source.render))
    scores = np.full(len(source), np.nan)
    for batch in eval_batches(source, batch_size=1, threads=threads):
        metric = jax.device_get(step(variables, batch))
        if any(np.any(count) for count in jax.tree.leaves(metric)):
            scores[batch.index] = task.summary(metric, source.classes)[task.score]
    scores[scores < 0] = np.nan  # as COCO says that there is no object
    ranked = np.argsort(scores)[: np.isfinite(scores).sum()]
    if not ranked.size:
        raise ValueError(f"no image of the {len(source)} has anything that can be judged")

    folder.mkdir(parents=True, exist_ok=True)
    predict = jax.jit(functools.partial(task.predict, model))
    places = {"best": -1, "median": ranked.size // 2, "worst": 0}
    found = {}
    for name, place in places.items():
        index = int(ranked[place])
        record = source[index]
        prediction = jax.device_get(predict(variables, record.require("image")[None]))
        prediction = jax.tree.map(lambda x: x[0], prediction)
        figure = task.draw(record, prediction, source.classes)
        viz.save_image(folder / f"{name}.png", viz.figure_image(figure))
        found[name] = index, float(scores[index])
    return found
