"""Fine-tuning: what do pretrained weights gain, and what does the published recipe gain?

A model is pretrained on one half of the training images. Then it is trained on the other half in
three ways, with the same number of steps: from scratch, from the pretrained weights by the
fine-tuning recipe of its family, and from the pretrained weights at the learning rate for training
from scratch. The halves are the first and second half of the files by name. In CamVid these are
mostly different drives, whose images differ more than those of one drive.

On street scenes in a folder as read by `segjax train --data folder:PATH` (1,340 CPU seconds; on
CamVid expect 0.26 from scratch, 0.38 by the recipe and 0.41 at 3e-3):
    python experiments/finetuning.py --data folder:CAMVID --void 11

The recipe is for weights that were pretrained for very long. The short pretraining here is perhaps
why the higher learning rate gains more.

Prints a table of mean IoUs on the evaluation split, as mean and standard deviation over the seeds
of the second training, and writes `finetuning.json` to the folder of the runs.
"""

import dataclasses
import json
import pathlib
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from segjax import cli
from segjax.objectives import PixelObjective
from segjax.training import OptimizerConfig, SemanticConfig, train
from segjax.training.lock import STOPPED

RUNS = SemanticConfig(
    run=pathlib.Path("runs/finetuning"),
    data="folder:camvid",
    model="segformer_b0",
    objective=PixelObjective(),
    size=(128, 128),
    scale=0.5,
    steps=150,
    batch_size=8,
    average_decay=0.9,  # for so few steps
    eval_every=1000,
    save_every=1000,
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Fine-tuning and training from scratch.

    Attributes:
      first_steps: Number of steps of the pretraining on the first half.
      seeds: Seeds of the training on the second half.
    """

    first_steps: int = 800
    seeds: tuple[int, ...] = (0, 1, 2)


def halve(config: SemanticConfig) -> SemanticConfig:
    """Links the data set into a new folder, with the training split as "first" and "second"."""
    data = pathlib.Path(config.data.removeprefix("folder:")).expanduser().absolute()
    halves = config.run / "data"
    for kind in ("images", "masks"):
        paths = sorted((data / config.train_split / kind).iterdir())
        middle = len(paths) // 2
        for half, some in (("first", paths[:middle]), ("second", paths[middle:])):
            folder = halves / half / kind
            folder.mkdir(parents=True, exist_ok=True)
            for path in some:
                _link(folder / path.name, path)
    _link(halves / config.eval_split, data / config.eval_split)
    _link(halves / "classes.json", data / "classes.json")
    return dataclasses.replace(config, data=f"folder:{halves}")


def _link(link: pathlib.Path, path: pathlib.Path) -> None:
    if not link.is_symlink():
        link.symlink_to(path)


def main(options: Options, runs: SemanticConfig) -> None:
    start = time.process_time()
    config = halve(runs)
    first = dataclasses.replace(
        config, run=config.run / "first", train_split="first", steps=options.first_steps
    )
    rows = {"first half": [(train(first) or sys.exit(STOPPED))["mean_iou"]]}
    at_scratch_rate = OptimizerConfig(
        name="adamw",
        learning_rate=3e-3,
        schedule="cosine",
        weight_decay=1e-2,
        clip=1.0,
        backbone=1.0,
    )
    variants = {
        "scratch": ("second half from scratch", {}),
        "recipe": ("second half from the first, by the recipe", {"weights": str(first.run)}),
        "scratch_rate": (
            "second half from the first, at 3e-3",
            {"weights": str(first.run), "optimizer": at_scratch_rate},
        ),
    }
    for seed in options.seeds:
        for name, (title, changes) in variants.items():
            run = config.run / f"{name}_seed_{seed}"
            changes = changes | {"run": run, "train_split": "second", "seed": seed}
            metrics = train(dataclasses.replace(config, **changes)) or sys.exit(STOPPED)
            rows.setdefault(title, []).append(metrics["mean_iou"])

    table = Table("trained on", "mean IoU")
    for title, values in rows.items():
        table.add_row(title, f"{np.mean(values):.3f} ± {np.std(values):.3f}")
    Console().print(table)
    print(f"{time.process_time() - start:.0f} CPU seconds")
    (config.run / "finetuning.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(cli.experiment(main, Options(), RUNS, description=__doc__))
