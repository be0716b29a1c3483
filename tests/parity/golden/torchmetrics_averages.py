"""Averages of IoU and Dice by torchmetrics and MONAI: writes torchmetrics_averages.npz beside this.

Run `python torchmetrics_averages.py` where torch, torchmetrics and MONAI are installed.
"""

from pathlib import Path

import numpy as np

AVERAGES = ("macro", "micro", "weighted")
CLASSES = 5


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Label maps `[h, w]` drawn by NumPy, each with every class."""
    import torch
    from monai.metrics import compute_generalized_dice
    from torchmetrics.functional import f1_score, jaccard_index

    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, p=[0.5, 0.3, 0.1, 0.06, 0.04], size=(20, 30))
    predictions = np.where(rng.random(labels.shape) < 0.7, labels, rng.permutation(labels))
    pair = torch.tensor(predictions), torch.tensor(labels)
    arrays = {"predictions": predictions, "labels": labels}
    options = {"task": "multiclass", "num_classes": CLASSES}
    for average in AVERAGES:
        arrays[f"iou_{average}"] = jaccard_index(*pair, average=average, **options).numpy()
        # The F1 score of pixels is Dice's coefficient.
        arrays[f"dice_{average}"] = f1_score(*pair, average=average, **options).numpy()
    one_hot = (torch.nn.functional.one_hot(x, CLASSES).movedim(-1, 0)[None] for x in pair)
    arrays["dice_generalized"] = compute_generalized_dice(*one_hot, sum_over_classes=True).numpy()[
        0, 0
    ]
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
