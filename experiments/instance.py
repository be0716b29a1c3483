"""Instance segmentation: by a set of queries, matched one to one, or by proposals.

Of procedural scenes, on a laptop:
    python experiments/instance.py

Of nuclei or pedestrians, from label images (PATH/SPLIT/images, PATH/SPLIT/instances):
    python experiments/instance.py --data folder:PATH --size 192 192 --steps 3000 --run runs/mine

Of COCO, from published weights:
    python experiments/instance.py --data coco:COCO --model mask2former_swin_tiny \\
        --weights facebook/mask2former-swin-tiny-coco-instance --size 640 640 \\
        --augmentation.zoom 0.1 2 --augmentation.zoom-from fit --augmentation.copy-paste 0.5

DETR, with boxes and masks, instead of Mask2Former:
    python experiments/instance.py --model detr_tiny --set-loss.mask 1 --set-loss.dice 1 \\
        --set-loss.cross-entropy 1

Mask R-CNN: proposals, each object matched with many, and suppression:
    python experiments/instance.py --model maskrcnn_tiny --optimizer.learning-rate 1e-3

It ends with COCO's average precisions of masks, and leaves `predictions.png`, `curves.png`,
`metrics.jsonl`, TensorBoard logs and checkpoints in the run's folder.
"""

import pathlib
import sys

from segjax import cli
from segjax.data import Augmentation
from segjax.tasks import SetLoss
from segjax.training import OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    run=pathlib.Path("runs/instance"),
    task="instance",
    model="mask2former_tiny",
    steps=1500,
    batch_size=4,
    set_loss=SetLoss(points=1024, max_objects=50),
    optimizer=OptimizerConfig(learning_rate=5e-4, weight_decay=0.05),
    augmentation=Augmentation(zoom=(0.75, 1.5)),
)

if __name__ == "__main__":
    sys.exit(cli.train(CONFIG, description=__doc__))
