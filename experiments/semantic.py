"""Semantic segmentation of procedural scenes: the experiment to start from.

On a laptop (3 minutes, 290 CPU seconds, on two cores of an AMD EPYC; expect a mean IoU of 0.72, of
things 0.68, on 256 scenes):
    python experiments/semantic.py

With easier or harder scenes (`--help` explains the options of --scenes):
    python experiments/semantic.py --scenes.max-instances 2 --scenes.hue-spread 0.5 --run runs/easy

On a GPU (a larger model, and scenes whose things differ by outline alone):
    python experiments/semantic.py --data synthetic:outlines --model unet --size 256 256 \\
        --batch-size 32 --steps 20000 --optimizer.learning-rate 3e-3 --dtype bfloat16 \\
        --run runs/large

On a TPU pod (the same command on every host; each one loads its part of every batch):
    python experiments/semantic.py --model unet --size 256 256 --batch-size 1024 --steps 20000 \\
        --eval-batch-size 256 --parallel mesh --fsdp 8 --distributed --run /SHARED/large

(/SHARED is a folder on storage that all hosts share: process 0 writes to it, and all read
checkpoints from it.)

Prints a table of IoUs at the end, and writes `predictions.png`, `curves.png`, `metrics.jsonl`,
TensorBoard logs and checkpoints to the folder of the run. On SIGTERM it saves a checkpoint and
exits; the same command resumes. `--help` shows all options. For your own images use
`segjax train semantic`, which has the same options with defaults for photographs.
"""

import sys

from segjax import cli
from segjax.data import Augmentation
from segjax.objectives import PixelObjective
from segjax.training import OptimizerConfig, SemanticConfig

CONFIG = SemanticConfig(
    size=(64, 64),
    steps=800,
    batch_size=16,
    eval_every=800,
    # The four classes of stuff cover most of a scene, so the seven classes of things weigh more.
    objective=PixelObjective(class_weights=(1.0,) * 4 + (1.5,) * 7),
    optimizer=OptimizerConfig(learning_rate=6e-3, clip=0.0),
    # Every scene is new, so augmentation is not needed.
    augmentation=Augmentation(
        zoom=(1.0, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
    ),
)

if __name__ == "__main__":
    sys.exit(cli.train(CONFIG, description=__doc__))
