"""torchvision's FCN and DeepLabV3, outputs and gradients: writes torchvision_dense.npz.

Run `python torchvision_dense.py` where torch and torchvision are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import draw_state_dict

CLASSES = 3
SIZE = 37, 50
# Keys in whose arrays' direction the loss's gradient is kept: one number each.
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
    """For each model, under `<model> …`: its output on an image, trained and not.

    `logits` and `auxiliary` are every fourth row and column in evaluation; `gradient` holds the
    slopes of `Σ logits · cos(index) + Σ auxiliary` of training along the weights of `KEYS`,
    without dropout, and `mean` and `var` are sums of the running statistics afterwards.
    """
    import torch
    from torchvision.models import segmentation

    rng = np.random.default_rng(seed)
    images = rng.normal(size=(2, *SIZE, 3))
    arrays = {"images": images}
    x = torch.tensor(np.moveaxis(images, -1, 1))
    for name, keys in KEYS.items():
        model = getattr(segmentation, name)(
            weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
        ).double()
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        weights = draw_state_dict(shapes)
        model.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
        model.eval()
        with torch.no_grad():
            outputs = model(x)
        for ours, theirs in (("logits", "out"), ("auxiliary", "aux")):
            arrays[f"{name} {ours}"] = np.moveaxis(outputs[theirs].numpy(), 1, -1)[:, ::4, ::4]

        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        outputs = model(x)
        logits = outputs["out"].movedim(1, -1)
        cosines = torch.cos(torch.arange(logits.numel(), dtype=torch.float64))
        (torch.sum(logits * cosines.reshape(logits.shape)) + outputs["aux"].sum()).backward()
        parameters = dict(model.named_parameters())
        arrays[f"{name} gradient"] = np.array(
            [(parameters[key].grad * parameters[key]).sum().item() for key in keys]
        )
        state = model.state_dict()
        for statistic in ("mean", "var"):
            arrays[f"{name} {statistic}"] = np.array(
                sum(v.sum().item() for k, v in state.items() if k.endswith(f"running_{statistic}"))
            )
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
