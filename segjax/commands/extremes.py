"""Which images of a split a model does best and worst with, and pictures of them."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from segjax import viz
from segjax.data import Source, eval_batches
from segjax.inference import Predictor
from segjax.inference.predictions import crop
from segjax.training import make_eval_step
from segjax.training.evaluate import to_host


class ImageJudge:
    """Evaluates a split image by image on one device, by one program for each canvas.

    Args:
      predictor: the model.
      source: the split.
      canvases: the most sizes that images are padded to, as in `make_evaluate`.
      threads: that read images.
    """

    def __init__(
        self, predictor: Predictor, source: Source, *, canvases: int = 3, threads: int = 4
    ):
        self.task, self.source = predictor.task, source
        self._variables = predictor.variables
        self._step = jax.jit(make_eval_step(self.task, predictor.model, render=source.render))
        if not self.task.canvas_invariant(predictor.model):
            canvases = 0
        self._batches = eval_batches(source, batch_size=1, canvases=canvases, threads=threads)

    def scores(self, *, track: Callable = lambda batches: batches) -> tuple[np.ndarray, Any]:
        """The score of each image by itself, and the metric of all together.

        An image's score is what the task's own would be if the split held it alone. Images in which
        there is nothing to judge have none.

        Args:
          track: passes the batches on, and may show how far it is.

        Returns:
          The scores `[len(source)]`, NaN where there is none, and the metric on the host.
        """
        scores, total = np.full(len(self.source), np.nan), None
        for batch in track(self._batches):
            metric = jax.tree.map(to_host, self._step(self._variables, batch)[0])
            if any(np.any(count) for count in jax.tree.leaves(metric)):
                figures = self.task.summary(metric, self.source.classes)
                scores[batch.index] = figures[self.task.score]
            total = metric if total is None else total.merge(metric)
        scores[scores < 0] = np.nan  # as COCO says that there is no object
        return scores, total

    def predictions(self, numbers: set[int]) -> dict[int, Any]:
        """What is predicted of some images, by number; NumPy arrays."""
        found = {}
        for batch in self._batches.holding(numbers):
            _, predictions = self._step(self._variables, batch)
            found[int(np.asarray(batch.index)[0])] = jax.tree.map(
                lambda x: np.asarray(x)[0], predictions
            )
        return found


def write_extremes(folder: pathlib.Path, judge: ImageJudge, scores: np.ndarray) -> dict[str, int]:
    """Writes `best.png`, `median.png` and `worst.png`.

    Args:
      folder: for the pictures; made if missing.
      judge: of the split.
      scores: of its images.

    Returns:
      By name the example's number in the source.

    Raises:
      ValueError: if no image has a score.
    """
    ranked = np.argsort(scores)[: np.isfinite(scores).sum()]
    if not ranked.size:
        raise ValueError(f"no image of the {len(scores)} has anything that can be judged")

    folder.mkdir(parents=True, exist_ok=True)
    places = {"best": -1, "median": ranked.size // 2, "worst": 0}
    numbers = {name: int(ranked[place]) for name, place in places.items()}
    predictions = judge.predictions(set(numbers.values()))
    for name, number in numbers.items():
        record = judge.source[number]
        prediction = crop(predictions[number], record.require("image").shape[:2])
        row = judge.task.draw(record, prediction, judge.source.classes)
        viz.save_image(folder / f"{name}.png", viz.page([row], judge.source.classes))
    return numbers
