"""segmentation-models-pytorch's DeepLabV3+, by the record of `dense.py`: writes smp_deeplab.npz.

Run `python smp_deeplab.py` where torch, segmentation-models-pytorch and JAX are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from dense import record_peer

CLASSES = 3
SIZE = 48, 32
STAGE_SIZES = 1, 1, 1, 1
# Keys of whose arrays the loss's gradient is kept: its slope along cosines, one number each.
KEYS = [
    "encoder.conv1.weight",
    "encoder.layer4.0.downsample.0.weight",
    "encoder.layer4.0.conv2.weight",
    "decoder.aspp.0.convs.1.0.0.weight",
    "decoder.aspp.0.convs.4.1.weight",
    "decoder.aspp.1.1.weight",
    "decoder.block1.0.weight",
    "decoder.block2.0.0.weight",
    "segmentation_head.0.bias",
]


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The record on two images, on an encoder of `basic` blocks; of `bottleneck`s the logits."""
    from segmentation_models_pytorch import DeepLabV3Plus
    from segmentation_models_pytorch.encoders.resnet import ResNetEncoder
    from torchvision.models.resnet import BasicBlock, Bottleneck

    images = np.random.default_rng(seed).integers(-8, 9, size=(2, *SIZE, 3)) / 4
    arrays = {"images": images}
    blocks = {"basic": ("resnet34", BasicBlock), "bottleneck": ("resnet50", Bottleneck)}
    for kind, (encoder, block) in blocks.items():
        model = DeepLabV3Plus(encoder, encoder_weights=None, classes=CLASSES)
        channels = model.encoder.out_channels
        model.encoder = ResNetEncoder(channels, 5, 16, block=block, layers=list(STAGE_SIZES))
        model.encoder.make_dilated(16)
        record = record_peer(model, images, KEYS)
        kept = record if kind == "basic" else ["logits"]
        arrays |= {f"{kind} {name}": record[name] for name in kept}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
