"""ROIAlign, ROI pooling, their gradients by torchvision: writes torchvision_regions.npz beside it.

Run `python torchvision_regions.py` where torchvision is installed.
"""

from pathlib import Path

import numpy as np

OUTPUT_SIZE = (3, 2)

# (spatial_scale, sampling_ratio, aligned)
CASES = [
    *((1.0, sampling_ratio, True) for sampling_ratio in (2, 3, None)),
    *((0.5, sampling_ratio, False) for sampling_ratio in (2, None)),
]
POOLED_SCALES = (1.0, 0.5)


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy; for each case the output, and the gradient of `Σ output·cotangent`.

    A case of `CASES` owns the entries `<i>_…`, a scale of ROI pooling `pool_<scale>_…`. No box has
    its sides swapped: with those torchvision fails where the number of samples adapts to the box.
    """
    import torch
    from torchvision.ops import roi_align, roi_pool

    rng = np.random.default_rng(seed)
    features = rng.normal(size=(9, 11, 2))
    start, sides = rng.uniform(-6, 16, (12, 2)), rng.uniform(0, 14, (12, 2))
    around = [
        [0, 0, 11, 9],
        [-1, -1, 12, 10],
        [0, 0, 7, 3.5],
        [3, 3, 3, 8],  # without area
        [0, 0, 0, 0],
        [-50, -50, -40, -40],  # outside
        [-100, -80, 300, 200],  # many times the map
    ]
    boxes = np.concatenate([np.concatenate([start, start + sides], axis=1), around])
    cotangent = rng.normal(size=(len(boxes), *OUTPUT_SIZE, 2))
    arrays = {"features": features, "boxes": boxes, "cotangent": cotangent}

    def run(name, pool, *options):
        source = torch.tensor(np.moveaxis(features, -1, 0)[None], requires_grad=True)
        output = pool(source, [torch.tensor(boxes)], OUTPUT_SIZE, *options)
        output.backward(torch.tensor(np.moveaxis(cotangent, -1, 1)))
        arrays[f"{name}_output"] = np.moveaxis(output.detach().numpy(), 1, -1)
        arrays[f"{name}_gradient"] = np.moveaxis(source.grad.numpy()[0], 0, -1)

    for i, (spatial_scale, sampling_ratio, aligned) in enumerate(CASES):
        run(i, roi_align, spatial_scale, sampling_ratio or -1, aligned)
    for scale in POOLED_SCALES:
        run(f"pool_{scale}", roi_pool, scale)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
