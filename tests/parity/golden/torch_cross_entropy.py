"""Cross-entropies and their gradients by torch: writes torch_cross_entropy.npz beside this file.

Run `python torch_cross_entropy.py` where torch is installed.
"""

import itertools
from pathlib import Path

import numpy as np

# (soft labels, class weights, label_smoothing)
CASES = list(itertools.product((False, True), (False, True), (0.0, 0.2)))


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy; for each case the losses, their torch mean, and the sum's gradient.

    Case i of `CASES` owns the entries `<i>_…`. Pixel [0, 0] is void for integer labels.
    """
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(4, 6, 5))
    labels = rng.integers(5, size=(4, 6))
    labels[0, 0] = 255
    soft_labels = rng.dirichlet(np.ones(5), size=(4, 6))
    class_weights = rng.uniform(0.1, 2, size=5)
    arrays = {
        "logits": logits,
        "labels": labels,
        "soft_labels": soft_labels,
        "class_weights": class_weights,
    }
    for i, (soft, weighted, label_smoothing) in enumerate(CASES):
        rows = torch.tensor(logits.reshape(-1, 5), requires_grad=True)
        targets = torch.tensor(soft_labels.reshape(-1, 5) if soft else labels.reshape(-1))
        options = {
            "weight": torch.tensor(class_weights) if weighted else None,
            "label_smoothing": label_smoothing,
            "ignore_index": -100 if soft else 255,
        }
        losses = functional.cross_entropy(rows, targets, reduction="none", **options)
        losses.sum().backward()
        arrays[f"{i}_losses"] = losses.detach().numpy().reshape(4, 6)
        arrays[f"{i}_mean"] = functional.cross_entropy(rows, targets, **options).detach().numpy()
        arrays[f"{i}_gradient"] = rows.grad.numpy().reshape(4, 6, 5)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
