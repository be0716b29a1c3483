"""What sees to it that an object is found once: the matching, or suppression afterwards?

The same model learns twice: with each object matched with one query, and with each matched with
several (one-to-many, as proposals are assigned). Both are judged with and without non-maximum
suppression (NMS), by the average precision of masks and by how many further predictions an object
has that was found: sure ones (score of at least 0.5) of its class that overlap it by more than one
half.

Of procedural scenes that it has not seen (20 minutes, 37 CPU minutes, on two cores of an AMD EPYC;
expect an average precision of 0.33 with one-to-one matching without NMS, of 0.15 with one-to-many
matching without it and of 0.36 with it), or of nuclei:
    python experiments/duplicates.py
    python experiments/duplicates.py --data folder:NUCLEI --size 128 128 \\
        --steps 5000 --model-options num_queries 400 \\
        --max-objects 100

The model has to be sure of what it finds before there can be duplicates. Prints the table, mean and
standard deviation over the seeds, and writes `duplicates.json` beside the runs.
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
    # Four queries for each of four things, and some for none.
    model_options={"num_queries": "20", "width": "32"},
)


@dataclasses.dataclass(frozen=True)
class Options:
    """One-to-one against one-to-many matching.

    Attributes:
      matches: Queries that each object is matched with, one-to-many.
      iou_threshold: IoU of boxes above which NMS suppresses the less sure object.
      seeds: Seeds of the runs.
    """

    matches: int = 4
    iou_threshold: float = 0.5
    seeds: tuple[int, ...] = (0, 1, 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Found(Sums):
    """Objects that some sure prediction overlaps, and those predictions."""

    objects: jax.Array
    predictions: jax.Array


class FoundTask(InstanceTask):
    """Counts instead of judging."""

    def measure(self, predictions: Instances, record: Record) -> Found:
        targets = self.targets(record)
        sure = predictions.valid & (predictions.scores >= 0.5)
        of = mask_iou(predictions.masks, targets.masks) > 0.5  # of one object at most
        of &= predictions.classes[..., None] == targets.classes[..., None, :]
        of &= sure[..., None] & (targets.valid & record.valid[..., None])[..., None, :]
        return Found(jnp.sum(of.any(-2)), jnp.sum(of.any(-1)))

    def summary(self, metric: Found, classes) -> dict[str, float]:
        further = (metric.predictions - metric.objects) / np.maximum(metric.objects, 1)
        return {"further predictions an object found": float(further)}


def judge(config: InstanceConfig, nms_threshold: float | None) -> dict[str, float]:
    """The figures of a finished run on its evaluation split."""
    source, parallel = open_config_source(config, config.eval_split), Parallel()
    model = make_model(config, len(source.classes))
    variables, _ = load_variables(config.run / "checkpoints", "last")
    figures = {}
    for kind in (InstanceTask, FoundTask):
        task = kind(**vars(make_task(config, source.classes)) | {"nms_threshold": nms_threshold})
        evaluate = make_evaluate(task, model, source, parallel, batch_size=config.eval_batch_size)
        figures |= task.summary(evaluate(parallel.place(variables)).metric, source.classes)
    return {name: value for name, value in figures.items() if "/" not in name}


def main(options: Options, runs: InstanceConfig) -> None:
    rows = {}
    for matches in (1, options.matches):
        figures: dict[str, list[dict[str, float]]] = {"no": [], "yes": []}
        for seed in options.seeds:
            config = dataclasses.replace(
                runs,
                run=runs.run / f"{matches}_to_one_seed_{seed}",
                objective=dataclasses.replace(runs.objective, matches=matches),
                seed=seed,
            )
            train(config) or sys.exit(STOPPED)
            figures["no"].append(judge(config, None))
            figures["yes"].append(judge(config, options.iou_threshold))
        rows |= {f"{matches}, NMS: {nms}": figures[nms] for nms in figures}

    names = ("ap", "ap50", "further predictions an object found")
    table = Table("queries an object", *names)
    for title, scores in rows.items():
        values = np.array([[run[name] for name in names] for run in scores])
        means, spreads = values.mean(0), values.std(0)
        cells = (f"{m:.3f} ± {s:.3f}" for m, s in zip(means, spreads, strict=True))
        table.add_row(title, *cells)
    Console().print(table)
    (runs.run / "duplicates.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(cli.experiment(main, Options(), RUNS, description=__doc__))
