"""Resampled arrays and their gradients by torch: writes torch_interpolation.npz beside this file.

Run `python torch_interpolation.py` where torch is installed.
"""

from pathlib import Path

import numpy as np

# (new shape, method, align_corners, antialias)
RESIZES = [
    ((h, w), method, align_corners, antialias)
    for h, w in [(9, 4), (3, 14), (1, 1), (15, 2)]
    for method in ("bilinear", "bicubic")
    for align_corners in (False, True)
    for antialias in (False, True)
] + [
    (shape, method, False, False)
    for method in ("nearest", "nearest-exact", "area")
    for shape in [(9, 4), (3, 14)]
]

# (method, padding)
SAMPLES = [
    (method, padding)
    for method in ("bilinear", "bicubic", "nearest")
    for padding in ("zeros", "border", "reflection")
]


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy; for each case the output, and the gradients of `Σ output·cotangent`.

    A case of `RESIZES` or `SAMPLES` owns the entries `resize_<i>_…` or `sample_<i>_…`.
    """
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(seed)
    image = rng.normal(size=(5, 7, 2))
    points = rng.uniform(-3, 10, size=(40, 2))
    arrays = {"image": image, "points": points}

    def channels_first(array):
        return torch.tensor(np.moveaxis(array, -1, 0)[None], requires_grad=True)

    def channels_last(tensor):
        return np.moveaxis(tensor.detach().numpy()[0], 0, -1)

    for i, (shape, method, align_corners, antialias) in enumerate(RESIZES):
        source = channels_first(image)
        options = {"align_corners": align_corners} if method in ("bilinear", "bicubic") else {}
        output = functional.interpolate(
            source, size=shape, mode=method, antialias=antialias, **options
        )
        cotangent = rng.normal(size=(*shape, 2))
        output.backward(channels_first(cotangent))
        arrays[f"resize_{i}_output"] = channels_last(output)
        arrays[f"resize_{i}_cotangent"] = cotangent
        arrays[f"resize_{i}_gradient"] = channels_last(source.grad)

    for i, (method, padding) in enumerate(SAMPLES):
        source = channels_first(image)
        pixels = torch.tensor(points, requires_grad=True)
        grid = (2 * pixels / torch.tensor([7.0, 5.0]) - 1)[None, None]
        output = functional.grid_sample(
            source, grid, mode=method, padding_mode=padding, align_corners=False
        )
        cotangent = rng.normal(size=(40, 2))
        output.backward(torch.tensor(cotangent.T[None, :, None]))
        arrays[f"sample_{i}_output"] = output.detach().numpy()[0, :, 0].T
        arrays[f"sample_{i}_cotangent"] = cotangent
        arrays[f"sample_{i}_gradient"] = channels_last(source.grad)
        arrays[f"sample_{i}_points_gradient"] = pixels.grad.numpy()
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
