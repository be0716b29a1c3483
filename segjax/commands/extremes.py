"""The images of a split with the best and worst scores, and pictures of them."""

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


class ImageEvaluator:
    """Evaluates a split image by image on one device, with one program for each canvas.

    Args:
      predictor: predictor of the model.
      source: source of the split.
      canvases: largest number of sizes that images are padded to, as in `make_evaluate`.
      threads: number of threads that read images.
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
        """Computes the score of each image by itself, and the metric of all together.

        The score of an image is the task's score on this image alone. Images without anything to
        evaluate have no score.

        Args:
          track: function that passes on the batches, and may show the progress.

        Returns:
          The scores `[len(source)]`, NaN for images without one, and the metric on the host.
        """
        scores, total = np.full(len(self.source), np.nan), None
        for batch in track(self._batches):
            metric = jax.tree.map(to_host, self._step(self._variables, batch)[0])
            if any(np.any(count) for count in jax.tree.leaves(metric)):
                metrics = self.task.summary(metric, self.source.classes)
                scores[batch.index] = metrics[self.task.score]
            total = metric if total is None else total.merge(metric)
        scores[scores < 0] = np.nan  # COCO's value for images without objects
        return scores, total

    def predictions(self, numbers: set[int]) -> dict[int, Any]:
        """Predictions for some images by index, as NumPy arrays."""
        found = {}
        for batch in self._batches.holding(numbers):
            _, predictions = self._step(self._variables, batch)
            found[int(np.asarray(batch.index)[0])] = jax.tree.map(
                lambda x: np.asarray(x)[0], predictions
            )
        return found


def write_extremes(
    folder: pathlib.Path, evaluator: ImageEvaluator, scores: np.ndarray
) -> dict[str, int]:
    """Writes `best.png`, `median.png` and `worst.png`.

    Args:
      folder: folder for the pictures; made if missing.
      evaluator: evaluator of the split.
      scores: scores of its images, as from `evaluator.scores`.

    Returns:
      The index in the source of each picture, by name.

    Raises:
      ValueError: if no image has a score.
    """
    ranked = np.argsort(scores)[: np.isfinite(scores).sum()]
    if not ranked.size:
        raise ValueError(f"data: expected an image with a score, got none in {len(scores)}")

    folder.mkdir(parents=True, exist_ok=True)
    places = {"best": -1, "median": ranked.size // 2, "worst": 0}
    numbers = {name: int(ranked[place]) for name, place in places.items()}
    predictions = evaluator.predictions(set(numbers.values()))
    for name, number in numbers.items():
        record = evaluator.source[number]
        prediction = crop(predictions[number], record.require("image").shape[:2])
        row = evaluator.task.draw(record, prediction, evaluator.source.classes)
        viz.save_image(folder / f"{name}.png", viz.page([row], evaluator.source.classes))
    return numbers
