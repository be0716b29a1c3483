"""Semantic segmentation, from data to masks: the experiment to start from.

On a laptop (procedural scenes, no download; minutes on two cores):
    python experiments/semantic.py

On a GPU (any folder of images/ and masks/, see `segjax.data.Folder`):
    python experiments/semantic.py --data folder:PATH --model unet --size 512 512 --dtype bfloat16 \
        --run runs/mine

On a TPU pod (the same command on every host; each reads its share of every batch):
    python experiments/semantic.py --data tfds:oxford_iiit_pet:4.*.* --model unet --size 256 256 \
        --batch-size 256 --parallel mesh --fsdp 8 --distributed --run /SHARED/pets

(/SHARED is a folder that every host sees: process 0 writes there, all read checkpoints from it.)

It ends with a table of IoUs, and leaves `predictions.png`, `curves.png`, `metrics.jsonl`,
TensorBoard logs and checkpoints in the run's folder. Interrupted by SIGTERM, it saves and exits;
the same command goes on. Every option has a flag: `--help`.
"""

import tyro

from segjax.training import TrainConfig, train

CONFIG = TrainConfig()

if __name__ == "__main__":
    train(tyro.cli(TrainConfig, default=CONFIG, description=__doc__))
