"""torchvision's FCN and DeepLabV3, by the record of `dense.py`: writes torchvision_dense.npz.

Run `python torchvision_dense.py` where torch, torchvision and JAX are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from dense import record_peer

CLASSES = 3
SIZE = 37, 50
# Keys of whose arrays the loss's gradient is kept: its slope along cosines, one number each.
KEYS = {
    "fcn_resnet50": [
        "backbone.conv1.weight",
        "backbone.layer4.2.conv2.weight",
        "classifier.4.bias",
    ],
    "deeplabv3_resnet50": [
        "backbone.layer3.0.downsample.0.weight",
        "classifier.0.convs.2.0.weight",
        "classifier.0.convs.4.1.weight",
        "aux_classifier.0.weight",
    ],
}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """For each model, under `<model> …`, its record on two images."""
    from torchvision.models import segmentation

    arrays = {"images": np.random.default_rng(seed).normal(size=(2, *SIZE, 3))}
    options = {"weights": None, "weights_backbone": None, "aux_loss": True}
    for name, keys in KEYS.items():
        model = getattr(segmentation, name)(num_classes=CLASSES, **options)
        record = record_peer(model, arrays["images"], keys)
        arrays |= {f"{name} {entry}": array for entry, array in record.items()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
