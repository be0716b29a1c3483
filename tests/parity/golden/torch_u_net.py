"""U-Nets, milesial's and segmentation-models-pytorch's: writes torch_u_net.npz.

Run `python torch_u_net.py` where torch and segmentation-models-pytorch are installed.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from dense import record_peer

CLASSES = 3
# No power of two, odd on some levels, and a single row on the last.
SIZE = 21, 38
# The channels of a small U-Net's levels.
WIDTHS = (4, 8, 12, 16, 20)
# Keys of whose arrays the loss's gradient is kept: its slope along cosines, one number each.
KEYS = {
    "transposed": [
        "inc.double_conv.0.weight",
        "down2.maxpool_conv.1.double_conv.3.weight",
        "up1.up.weight",
        "up3.up.bias",
        "up4.conv.double_conv.4.bias",
        "outc.conv.bias",
    ],
    "bilinear": [
        "inc.double_conv.1.weight",
        "down4.maxpool_conv.1.double_conv.0.weight",
        "up1.conv.double_conv.0.weight",
        "up4.conv.double_conv.3.weight",
    ],
    "unet_resnet18": [
        "encoder.conv1.weight",
        "encoder.layer4.1.conv2.weight",
        "decoder.blocks.0.conv1.0.weight",
        "decoder.blocks.4.conv2.1.bias",
        "segmentation_head.0.weight",
    ],
}


def milesial(bilinear: bool):
    """The U-Net of github.com/milesial/Pytorch-UNet: its modules' names and its arithmetic."""
    import torch
    from torch import nn

    def double_conv(inputs, outputs, inner=None):
        widths = (inputs, inner or outputs, outputs)
        layers = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        return nn.ModuleDict({"double_conv": nn.Sequential(*layers)})

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            halved = lambda i: WIDTHS[max(i - 1, 0)] if bilinear else WIDTHS[i]
            self.inc = double_conv(3, WIDTHS[0])
            for i in range(1, 5):
                outputs = halved(4) if i == 4 else WIDTHS[i]
                down = nn.ModuleList([nn.MaxPool2d(2), double_conv(WIDTHS[i - 1], outputs)])
                self.add_module(f"down{i}", nn.ModuleDict({"maxpool_conv": down}))
            for i in range(1, 5):
                level = 4 - i
                parts = {"conv": double_conv(2 * WIDTHS[level], halved(level), WIDTHS[level])}
                if not bilinear:
                    parts["up"] = nn.ConvTranspose2d(WIDTHS[level + 1], WIDTHS[level], 2, 2)
                self.add_module(f"up{i}", nn.ModuleDict(parts))
            self.outc = nn.ModuleDict({"conv": nn.Conv2d(WIDTHS[0], CLASSES, 1)})

        def forward(self, x):
            skips = [self.inc["double_conv"](x)]
            for i in range(1, 5):
                pool, conv = getattr(self, f"down{i}")["maxpool_conv"]
                skips.append(conv["double_conv"](pool(skips[-1])))
            x = skips.pop()
            for i in range(1, 5):
                parts, skip = getattr(self, f"up{i}"), skips.pop()
                if bilinear:
                    options = {"mode": "bilinear", "align_corners": True}
                    x = nn.functional.interpolate(x, scale_factor=2, **options)
                else:
                    x = parts["up"](x)
                rows, columns = (skip.shape[axis] - x.shape[axis] for axis in (2, 3))
                before = (columns // 2, rows // 2)
                pads = (before[0], columns - before[0], before[1], rows - before[1])
                x = nn.functional.pad(x, pads)
                x = parts["conv"]["double_conv"](torch.cat([skip, x], dim=1))
            return self.outc["conv"](x)

    return UNet()


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """For each model, under `<model> …`: its record, as `dense` tells."""
    import segmentation_models_pytorch as smp

    images = np.random.default_rng(seed).integers(-8, 9, size=(2, *SIZE, 3)) / 4
    peers = {
        "transposed": milesial(bilinear=False),
        "bilinear": milesial(bilinear=True),
        "unet_resnet18": smp.Unet("resnet18", encoder_weights=None, classes=CLASSES),
    }
    arrays = {"images": images}
    for name, model in peers.items():
        record = record_peer(model, images, KEYS[name])
        arrays |= {f"{name} {key}": array for key, array in record.items()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
