"""Hausdorff and centre-line losses and their gradients by MONAI: writes monai_boundaries.npz.

Run `python monai_boundaries.py` where torch and MONAI are installed.
"""

from pathlib import Path

import numpy as np

ITERATIONS = 3


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy: soft and hard masks `[n, h, w]`; the third of the latter is empty."""
    import torch
    from monai.losses import HausdorffDTLoss, SoftclDiceLoss
    from monai.losses.cldice import soft_skel

    rng = np.random.default_rng(seed)
    probs = rng.uniform(size=(3, 14, 11))
    probs[:, 3:9, 2:8] = probs[:, 3:9, 2:8] / 2 + 0.5  # something wider than a pixel
    targets = np.zeros((3, 14, 11))
    targets[0, 4:9, 1:7] = 1
    targets[1, 2:12, 4] = 1
    arrays = {"probs": probs, "targets": targets}

    p = torch.tensor(probs[:, None], requires_grad=True)
    y = torch.tensor(targets[:, None])
    skeleton = soft_skel(p, ITERATIONS)
    weights = rng.normal(size=probs.shape)
    arrays["weights"] = weights
    arrays["skeleton"] = skeleton.detach().numpy()[:, 0]
    (gradient,) = torch.autograd.grad((skeleton * torch.tensor(weights[:, None])).sum(), p)
    arrays["skeleton_gradient"] = gradient.numpy()[:, 0]

    # Its own term in the last denominator is made as good as 0: the paper has none.
    losses = {
        "hausdorff": HausdorffDTLoss(include_background=True, reduction="none"),
        "hausdorff_1": HausdorffDTLoss(include_background=True, reduction="none", alpha=1.0),
        "cldice": SoftclDiceLoss(iter_=ITERATIONS, smooth=1e-300, reduction="none"),
    }
    for name, loss in losses.items():
        values = loss(p, y)
        (gradient,) = torch.autograd.grad(values.sum(), p)
        arrays[name] = values.detach().numpy().reshape(-1)
        arrays[f"{name}_gradient"] = gradient.numpy()[:, 0]
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
