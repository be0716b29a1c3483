"""Duplicate predictions: does one-to-one matching prevent them, or non-maximum suppression?

The same model is trained twice: with each object matched with one query, and with each object
matched with several (one-to-many, as in proposal-based detectors). Both are evaluated with and
without non-maximum suppression (NMS) by the average precision of masks and by the number of
duplicates: further predictions of the same class, with a score of at least 0.5, that overlap an
object by more than one half.

On procedural scenes (20 minutes, 37 CPU minutes, on two cores of an AMD EPYC; expect a mask AP of
0.33 with one-to-one matching without NMS, and with one-to-many matching of 0.15 without and 0.36
with it), or on nuclei:
    python experiments/duplicates.py
    python experiments/duplicates.py --data folder:NUCLEI --size 128 128 \\
        --steps 5000 --model-options num_queries 400 \\
        --max-objects 100

Duplicates appear only after the model has been trained long enough to give high scores. Prints a
table of means and standard deviations over the seeds, and writes `duplicates.json` to the folder of
the runs.
"""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from instance import CONFIG
from rich.console import Console
from rich.table import Table

from segjax import cli
from segjax.metrics.sums import Sums
from segjax.ops import mask_iou
from segjax.tasks import InstanceTask
from segjax.training import InstanceConfig, train
from segjax.training.build import make_model, make_task
from segjax.training.checkpoint import load_variables
from segjax.training.evaluate import make_evaluate
from segjax.training.lock import STOPPED
from segjax.training.loop import open_config_source
from segjax.training.parallel import Parallel
from segjax.typing import Instances, Record

RUNS = dataclasses.replace(
    CONFIG,
    run=CONFIG.run.with_name("duplicates"),
    steps=500,
    # Enough for four queries for each of four things.
    model_options={"num_queries": "20", "width": "32"},
)


@dataclasses.dataclass(frozen=True)
class Options:
    """One-to-one and one-to-many matching.

    Attributes:
      matches: Number of queries that each object is matched with in one-to-many matching.
      iou_threshold: Box IoU above which NMS removes the object with the lower score.
      seeds: Seeds of the runs.
    """

    matches: int = 4
    iou_threshold: float = 0.5
    seeds: tuple[int, ...] = (0, 1, 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections(Sums):
    """Number of objects that were found, and of all predictions that found them."""

    objects: jax.Array
    predictions: jax.Array


class DuplicatesTask(InstanceTask):
    """Instance segmentation whose metric is the number of duplicates."""

    def measure(self, predictions: Instances, record: Record) -> Detections:
        targets = self.targets(record)
        confident = predictions.valid & (predictions.scores >= 0.5)
        found = mask_iou(predictions.masks, targets.masks) > 0.5  # at most one object each
        found &= predictions.classes[..., None] == targets.classes[..., None, :]
        found &= confident[..., None] & (targets.valid & record.valid[..., None])[..., None, :]
        return Detections(jnp.sum(found.any(-2)), jnp.sum(found.any(-1)))

    def summary(self, metric: Detections, classes) -> dict[str, float]:
        duplicates = (metric.predictions - metric.objects) / np.maximum(metric.objects, 1)
        return {"duplicates per object found": float(duplicates)}


def evaluate_run(config: InstanceConfig, nms_threshold: float | None) -> dict[str, float]:
    """The metrics of a finished run on its evaluation split."""
    source, parallel = open_config_source(config, config.eval_split), Parallel()
    model = make_model(config, len(source.classes))
    variables, _ = load_variables(config.run / "checkpoints", "last")
    metrics = {}
    for kind in (InstanceTask, DuplicatesTask):
        task = kind(**vars(make_task(config, source.classes)) | {"nms_threshold": nms_threshold})
        evaluate = make_evaluate(task, model, source, parallel, batch_size=config.eval_batch_size)
        metrics |= task.summary(evaluate(parallel.place(variables)).metric, source.classes)
    return {name: value for name, value in metrics.items() if "/" not in name}


def main(options: Options, runs: InstanceConfig) -> None:
    rows = {}
    for matches in (1, options.matches):
        metrics: dict[str, list[dict[str, float]]] = {"no": [], "yes": []}
        for seed in options.seeds:
            config = dataclasses.replace(
                runs,
                run=runs.run / f"{matches}_to_one_seed_{seed}",
                objective=dataclasses.replace(runs.objective, matches=matches),
                seed=seed,
            )
            train(config) or sys.exit(STOPPED)
            metrics["no"].append(evaluate_run(config, None))
            metrics["yes"].append(evaluate_run(config, options.iou_threshold))
        rows |= {f"{matches}, NMS: {nms}": metrics[nms] for nms in metrics}

    names = ("ap", "ap50", "duplicates per object found")
    table = Table("queries per object", *names)
    for title, scores in rows.items():
        values = np.array([[run[name] for name in names] for run in scores])
        means, spreads = values.mean(0), values.std(0)
        cells = (f"{m:.3f} ± {s:.3f}" for m, s in zip(means, spreads, strict=True))
        table.add_row(title, *cells)
    Console().print(table)
    (runs.run / "duplicates.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(cli.experiment(main, Options(), RUNS, description=__doc__))
