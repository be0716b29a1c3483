"""Panoptic segmentation with Mask2Former.

On procedural scenes, on a laptop (9 minutes, 846 CPU seconds, on two cores of an AMD EPYC; expect a
panoptic quality of 0.50, and 0.53 for things, on 256 scenes):
    python experiments/panoptic.py

On real images, in COCO's format, from published weights:
    python experiments/panoptic.py --data coco_panoptic:COCO --model mask2former_resnet50 \\
        --weights facebook/mask2former-resnet50-coco-panoptic --size 640 640 \\
        --batch-size 4 --objective.points 12544 --max-objects 100 \\
        --augmentation.zoom 0.1 2 --augmentation.zoom-from fit --run runs/coco

On a TPU pod (the same command on every host; each one loads its part of every batch):
    python experiments/panoptic.py --data coco_panoptic:COCO --model mask2former_swin_tiny \\
        --size 1024 1024 --batch-size 256 --eval-batch-size 64 --steps 50000 --dtype bfloat16 \\
        --objective.points 12544 --max-objects 100 \\
        --parallel mesh --distributed --run /SHARED/coco

Prints a table of panoptic qualities at the end, and writes `predictions.png`, `curves.png`,
`metrics.jsonl`, TensorBoard logs and checkpoints to the folder of the run. Data with pixel labels
alone can be used too: each class of an image is then a segment of stuff.
"""

import pathlib
import sys

from segjax import cli
from segjax.data import Augmentation
from segjax.objectives import Mask2FormerObjective
from segjax.training import OptimizerConfig, PanopticConfig

CONFIG = PanopticConfig(
    run=pathlib.Path("runs/panoptic"),
    model="mask2former_tiny",
    # Half the channels and fewer than half the queries: a scene has at most eight segments.
    model_options={"num_queries": "20", "width": "32"},
    size=(64, 64),
    steps=1500,
    batch_size=16,
    # A mask of 64x64 pixels needs fewer points than one of 1024x1024 as in the paper.
    objective=Mask2FormerObjective(points=256),
    max_objects=8,
    optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05),
    # After such a short training, no query reaches the default threshold.
    score_threshold=0.35,
    # Every scene is new, so augmentation is not needed.
    augmentation=Augmentation(
        zoom=(1.0, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
    ),
)

if __name__ == "__main__":
    sys.exit(cli.train(CONFIG, description=__doc__))
