"""Instance segmentation with Mask2Former, DETR or Mask R-CNN.

On procedural scenes, on a laptop (9 minutes, 810 CPU seconds, on two cores of an AMD EPYC; expect
an average precision of masks of 0.49 on 256 scenes):
    python experiments/instance.py

On pedestrians or nuclei, from label images (PATH/SPLIT/images, PATH/SPLIT/instances), with enough
queries for all objects of an image:
    python experiments/instance.py --data folder:PATH --size 192 192 --batch-size 4 --steps 3000 \\
        --model-options num_queries 50 --objective.points 1024 --max-objects 50 \\
        --augmentation.zoom 0.75 1.5 --run runs/mine

On COCO, from published weights:
    python experiments/instance.py --data coco:COCO --model mask2former_swin_tiny \\
        --weights facebook/mask2former-swin-tiny-coco-instance --size 640 640 \\
        --batch-size 4 --objective.points 12544 --max-objects 100 \\
        --augmentation.zoom 0.1 2 --augmentation.zoom-from fit --augmentation.copy-paste 0.5

DETR, with boxes and masks, instead of Mask2Former:
    python experiments/instance.py --model detr_tiny --model-options num_queries 16 width 32

Mask R-CNN, with proposals and non-maximum suppression:
    python experiments/instance.py --model maskrcnn_tiny --model-options width 32

Prints COCO's average precisions of masks at the end, and writes `predictions.png`, `curves.png`,
`metrics.jsonl`, TensorBoard logs and checkpoints to the folder of the run.
"""

import pathlib
import sys

from segjax import cli
from segjax.data import Augmentation
from segjax.objectives import Mask2FormerObjective
from segjax.training import InstanceConfig, OptimizerConfig

CONFIG = InstanceConfig(
    run=pathlib.Path("runs/instance"),
    model="mask2former_tiny",
    # Half the channels and a third of the queries: a scene has at most four things.
    model_options={"num_queries": "16", "width": "32"},
    size=(64, 64),
    steps=1500,
    batch_size=16,
    # A mask of 64x64 pixels needs fewer points than one of 1024x1024 as in the paper.
    objective=Mask2FormerObjective(points=256),
    max_objects=4,
    optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05),
    # Every scene is new, so augmentation is not needed.
    augmentation=Augmentation(
        zoom=(1.0, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
    ),
)

if __name__ == "__main__":
    sys.exit(cli.train(CONFIG, description=__doc__))
