"""Region losses and their gradients by torch's libraries: writes torch_region.npz beside this file.

Run `python torch_region.py` where monai, segmentation-models-pytorch and kornia are installed.
"""

from pathlib import Path

import numpy as np

_OF_EACH_IMAGE, _OF_THE_BATCH = (1, 2), (0, 1, 2)

# The peer's loss: ours and its options. Half of MONAI's smoothing of Jaccard is ours, and twice
# that of segmentation_models_pytorch's Dice, which both scale their fractions by 2.
CASES = {
    "monai dice": ("dice_loss", {"axis": _OF_EACH_IMAGE, "smooth": 1.0}),
    "monai dice squared": ("dice_loss", {"axis": _OF_THE_BATCH, "smooth": 1.0, "squared": True}),
    "monai jaccard": ("jaccard_loss", {"axis": _OF_EACH_IMAGE, "smooth": 0.5}),
    "monai tversky": (
        "tversky_loss",
        {"axis": _OF_EACH_IMAGE, "alpha": 0.2, "beta": 0.6, "smooth": 1.0},
    ),
    "monai square": ("generalized_dice_loss", {"axis": _OF_EACH_IMAGE, "weighting": "square"}),
    "monai simple": ("generalized_dice_loss", {"axis": _OF_EACH_IMAGE, "weighting": "simple"}),
    "monai uniform": (
        "generalized_dice_loss",
        {"axis": _OF_EACH_IMAGE, "weighting": "uniform", "smooth": 1.0},
    ),
    "smp jaccard": ("jaccard_loss", {"axis": _OF_THE_BATCH, "smooth": 1.0}),
    "smp dice": ("dice_loss", {"axis": _OF_THE_BATCH, "smooth": 2.0}),
    "smp tversky": (
        "tversky_loss",
        {"axis": _OF_THE_BATCH, "alpha": 0.2, "beta": 0.6, "smooth": 1.0},
    ),
    "monai dice apart": ("dice_loss", {"axis": _OF_EACH_IMAGE, "smooth": (0.5, 2.0)}),
    "monai jaccard apart": ("jaccard_loss", {"axis": _OF_EACH_IMAGE, "smooth": (0.25, 1.0)}),
    "monai tversky apart": ("tversky_loss", {"axis": _OF_EACH_IMAGE, "smooth": (0.5, 2.0)}),
    "kornia dice": ("dice_loss", {"axis": _OF_EACH_IMAGE}),
    "kornia tversky": ("tversky_loss", {"axis": _OF_EACH_IMAGE, "alpha": 0.2, "beta": 0.6}),
}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy; for each case the mean loss and its gradient by the logits.

    A case of `CASES` owns the entries `<case>_…`. Every image holds every class: of absent ones
    each peer thinks otherwise.
    """
    import torch
    from kornia import losses as kornia
    from monai import losses as monai
    from segmentation_models_pytorch import losses as smp

    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(2, 5, 6, 3))
    labels = rng.integers(3, size=(2, 5, 6))
    labels[:, 0, :3] = np.arange(3)

    softmax = {"softmax": True, "to_onehot_y": True}
    smooth = {"smooth_nr": 1.0, "smooth_dr": 1.0}
    unsmoothed = {"smooth_nr": 0.0, "smooth_dr": 0.0}
    apart = {"smooth_nr": 0.5, "smooth_dr": 2.0}
    weights = {"alpha": 0.2, "beta": 0.6}
    peers = {
        "monai dice": monai.DiceLoss(**softmax, **smooth),
        "monai dice squared": monai.DiceLoss(**softmax, **smooth, squared_pred=True, batch=True),
        "monai jaccard": monai.DiceLoss(**softmax, **smooth, jaccard=True),
        "monai tversky": monai.TverskyLoss(**softmax, **smooth, **weights),
        "monai square": monai.GeneralizedDiceLoss(**softmax, **unsmoothed, w_type="square"),
        "monai simple": monai.GeneralizedDiceLoss(**softmax, **unsmoothed, w_type="simple"),
        "monai uniform": monai.GeneralizedDiceLoss(**softmax, **smooth, w_type="uniform"),
        "monai dice apart": monai.DiceLoss(**softmax, **apart),
        "monai jaccard apart": monai.DiceLoss(**softmax, **apart, jaccard=True),
        "monai tversky apart": monai.TverskyLoss(**softmax, **apart, alpha=0.3, beta=0.7),
        "smp jaccard": smp.JaccardLoss("multiclass", smooth=1.0),
        "smp dice": smp.DiceLoss("multiclass", smooth=1.0),
        "smp tversky": smp.TverskyLoss("multiclass", smooth=1.0, **weights),
        "kornia dice": lambda x, y: kornia.dice_loss(x, y[:, 0], average="macro", eps=0.0),
        "kornia tversky": lambda x, y: kornia.tversky_loss(x, y[:, 0], **weights, eps=0.0),
    }
    arrays = {"logits": logits, "labels": labels}
    for case, peer in peers.items():
        x = torch.tensor(np.moveaxis(logits, -1, 1), requires_grad=True)
        loss = peer(x, torch.tensor(labels[:, None]))
        loss.backward()
        arrays[f"{case}_loss"] = loss.detach().numpy()
        arrays[f"{case}_gradient"] = np.moveaxis(x.grad.numpy(), 1, -1)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
