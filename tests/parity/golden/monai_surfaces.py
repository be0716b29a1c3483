"""Hausdorff distances and surface Dice by MONAI: writes monai_surfaces.npz beside this file.

Run `python monai_surfaces.py` where torch and MONAI are installed.
"""

from pathlib import Path

import numpy as np

# The name of each result: ours, its options.
CASES = {
    "hausdorff_95": ("hausdorff_distance", {}),
    "hausdorff_100": ("hausdorff_distance", {"percentile": 100.0, "spacing": (0.5, 2.0)}),
    "surface_dice": ("normalized_surface_distance", {"tolerance": 1.5}),
    "surface_dice_spaced": (
        "normalized_surface_distance",
        {"tolerance": 1.0, "spacing": (0.5, 2.0)},
    ),
}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Masks `[n, h, w]` drawn by NumPy, none empty: sparse, dense, and a box at an edge."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(seed)
    share = np.array([0.03, 0.4, 0.9])[:, None, None]
    predictions, targets = rng.random((2, 3, 23, 17)) < share
    box = np.zeros((1, 23, 17), bool)
    box[:, 4:15, :9] = True
    predictions, targets = (
        np.concatenate([masks, np.roll(box, shift, axis=1)])
        for masks, shift in ((predictions, 3), (targets, 0))
    )
    p, y = (torch.tensor(masks[:, None]).float() for masks in (predictions, targets))
    whole = {"include_background": True}
    results = {
        "hausdorff_95": compute_hausdorff_distance(p, y, percentile=95, **whole),
        "hausdorff_100": compute_hausdorff_distance(p, y, spacing=(0.5, 2.0), **whole),
        "surface_dice": compute_surface_dice(p, y, [1.5], **whole),
        "surface_dice_spaced": compute_surface_dice(p, y, [1.0], spacing=(0.5, 2.0), **whole),
    }
    arrays = {name: result.numpy()[:, 0].astype(float) for name, result in results.items()}
    return {"predictions": predictions, "targets": targets, **arrays}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
