"""Pixel and Lovász losses and their gradients by torch's libraries: writes torch_pixel.npz.

Run `python torch_pixel.py` where torchvision, monai, segmentation-models-pytorch and kornia are
installed.
"""

from pathlib import Path

import numpy as np


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy; for each case the mean loss and its gradient by the logits.

    A case owns the entries `<case>_…`. Image 1 lacks class 2, and pixels where `valid` is False
    are void to the peers that know it.
    """
    import torch
    from kornia import losses as kornia
    from monai.losses import focal_loss as monai
    from segmentation_models_pytorch import losses as smp
    from torch.nn import functional
    from torchvision import ops as torchvision

    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(2, 5, 6, 3))
    labels = rng.integers(3, size=(2, 5, 6))
    labels[0, 0, :3] = np.arange(3)
    labels[1] = np.minimum(labels[1], 1)
    soft = rng.uniform(size=logits.shape)
    weights = rng.uniform(0.1, 2, size=3)
    valid = rng.uniform(size=labels.shape) < 0.7
    arrays = {"logits": logits, "labels": labels, "soft": soft, "weights": weights, "valid": valid}

    def channels_first(array):
        return torch.tensor(np.moveaxis(array, -1, 1))

    y, w = torch.tensor(labels), torch.tensor(weights)
    y_valid = torch.where(torch.tensor(valid), y, 255)
    mask = (y == 2).long()
    mask_valid = torch.where(torch.tensor(valid), mask, 255)
    one_hot, soft = channels_first(labels[..., None] == np.arange(3)).double(), channels_first(soft)

    def smp_lovasz(mode, **options):
        loss = smp.LovaszLoss(mode, **options)
        return lambda x, y: loss(x.float(), y)  # it fails for float64

    peers = {
        "torch cross-entropy": lambda x: functional.binary_cross_entropy_with_logits(
            x, soft, pos_weight=w[:, None, None]
        ),
        "smp cross-entropy": lambda x: smp.SoftBCEWithLogitsLoss(smooth_factor=0.1)(x, one_hot),
        "torchvision focal": lambda x: torchvision.sigmoid_focal_loss(
            x, soft, alpha=0.3, gamma=1.5, reduction="mean"
        ),
        "torchvision unbalanced": lambda x: torchvision.sigmoid_focal_loss(
            x, soft, alpha=-1, gamma=2.0, reduction="mean"
        ),
        "kornia binary focal": lambda x: kornia.binary_focal_loss_with_logits(
            x, one_hot, alpha=0.3, gamma=1.5, reduction="mean"
        ),
        "monai sigmoid focal": lambda x: monai.sigmoid_focal_loss(x, one_hot, 1.5, 0.3).mean(),
        "smp binary focal": lambda x: smp.FocalLoss("binary", alpha=0.3, gamma=1.5)(x, one_hot),
        # Of each class against the rest, by sigmoids.
        "smp multiclass focal": lambda x: smp.FocalLoss(
            "multiclass", alpha=0.3, gamma=1.5, ignore_index=255
        )(x, y_valid),
        "kornia focal": lambda x: (
            kornia.focal_loss(x, y_valid, alpha=None, gamma=1.5, weight=w, ignore_index=255)
            .sum(1)
            .mean()
        ),
        # Its alpha weighs class 0 by 1 − alpha.
        "kornia alpha": lambda x: kornia.focal_loss(x, y, alpha=0.3).sum(1).mean(),
        "monai softmax focal": lambda x: monai.softmax_focal_loss(x, one_hot, 1.5, w).sum(1).mean(),
        "smp lovasz": lambda x: smp_lovasz("multiclass", ignore_index=255)(x, y_valid),
        "smp lovasz per image": lambda x: smp_lovasz("multiclass", per_image=True)(x, y),
        "kornia lovasz": lambda x: kornia.lovasz_softmax_loss(x, y),
        "smp hinge": lambda x: smp_lovasz("binary", ignore_index=255)(x[:, 2], mask_valid),
        "smp hinge per image": lambda x: smp_lovasz("binary", per_image=True)(x[:, 2], mask),
        "kornia hinge": lambda x: kornia.lovasz_hinge_loss(x[:, 2:], mask),
    }
    for case, peer in peers.items():
        x = channels_first(logits).requires_grad_()
        loss = peer(x)
        loss.backward()
        arrays[f"{case}_loss"] = loss.detach().numpy()
        arrays[f"{case}_gradient"] = np.moveaxis(x.grad.numpy(), 1, -1)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
