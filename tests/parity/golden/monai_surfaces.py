"""Surface distances and surface Dice by MONAI: writes monai_surfaces.npz beside this file.

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
    "average": ("average_surface_distance", {}),
    "average_one_sided": (
        "average_surface_distance",
        {"symmetric": False, "spacing": (0.5, 2.0)},
    ),
}
_VOXEL = {"spacing": (2.5, 0.5, 1.5)}
# The same of volumes.
VOLUME_CASES = {
    "volume_hausdorff": ("hausdorff_distance", {"percentile": 90.0, **_VOXEL}),
    "volume_surface_dice": ("normalized_surface_distance", {"tolerance": 1.6, **_VOXEL}),
    "volume_average": ("average_surface_distance", _VOXEL),
}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Masks `[n, h, w]` and volumes `[n, d, h, w]` drawn by NumPy, none empty.

    The masks are sparse, dense, and a box at an edge.
    """
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

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
        "average": compute_average_surface_distance(p, y, symmetric=True, **whole),
        "average_one_sided": compute_average_surface_distance(p, y, spacing=(0.5, 2.0), **whole),
    }
    volumes = rng.random((2, 2, 5, 7, 6)) < np.array([0.1, 0.7])[:, None, None, None]
    p, y = (torch.tensor(masks[:, None]).float() for masks in volumes)
    voxel = {**whole, **_VOXEL}
    results |= {
        "volume_hausdorff": compute_hausdorff_distance(p, y, percentile=90, **voxel),
        "volume_surface_dice": compute_surface_dice(p, y, [1.6], **voxel),
        "volume_average": compute_average_surface_distance(p, y, symmetric=True, **voxel),
    }
    arrays = {name: result.numpy()[:, 0].astype(float) for name, result in results.items()}
    return {"predictions": predictions, "targets": targets, "volumes": volumes, **arrays}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
