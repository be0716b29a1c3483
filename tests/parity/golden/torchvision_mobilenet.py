"""torchvision's models on MobileNetV3: writes torchvision_mobilenet.npz.

Run `python torchvision_mobilenet.py` where torch, torchvision and JAX are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from dense import record_peer

CLASSES = 3
SIZE = 37, 50
# Of the large one's blocks, some that have all that blocks may have.
BLOCKS = 0, 1, 3, 6, 12, 13
# Keys in whose arrays' direction the loss's gradient is kept, for LR-ASPP on these blocks.
KEYS = [
    "backbone.0.0.weight",
    "backbone.1.block.0.0.weight",
    "backbone.3.block.2.fc1.weight",
    "backbone.5.block.1.0.weight",
    "backbone.6.block.3.1.weight",
    "classifier.scale.1.weight",
    "classifier.low_classifier.bias",
]


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Models on two images.

    `lraspp …` is the record of LR-ASPP on a few blocks. All blocks of the large and the small one
    show in the logits, every fourth row and column, of `small` (LR-ASPP) and `large` (DeepLabV3,
    which has `large auxiliary` too).
    """
    from torchvision.models import mobilenetv3, segmentation

    images = np.random.default_rng(seed).integers(-8, 9, size=(2, *SIZE, 3)) / 4
    arrays = {"images": images}

    def backbone(size, select=None):
        blocks, channels = mobilenetv3._mobilenet_v3_conf(f"mobilenet_v3_{size}", dilated=True)
        if select:
            blocks = [blocks[i] for i in select]
            for block, previous in zip(blocks[1:], blocks, strict=False):
                block.input_channels = previous.out_channels
        return mobilenetv3.MobileNetV3(blocks, channels)

    lraspp, deeplabv3 = segmentation.lraspp, segmentation.deeplabv3
    models = {
        "lraspp": lraspp._lraspp_mobilenetv3(backbone("large", BLOCKS), CLASSES),
        "small": lraspp._lraspp_mobilenetv3(backbone("small"), CLASSES),
        "large": deeplabv3._deeplabv3_mobilenetv3(backbone("large"), CLASSES, True),
    }
    for model, module in models.items():
        record = record_peer(module, images, KEYS if model == "lraspp" else [])
        kept = record if model == "lraspp" else record.keys() & {"logits", "auxiliary"}
        arrays |= {f"{model} {name}": record[name] for name in kept}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
