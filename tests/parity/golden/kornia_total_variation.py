"""Total variations and their gradients by kornia: writes kornia_total_variation.npz beside it.

Run `python kornia_total_variation.py` where kornia is installed.
"""

from pathlib import Path

import numpy as np


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """An image `[h, w, c]` drawn by NumPy, its variation by channel, and the sum's gradient."""
    import torch
    from kornia.losses import total_variation

    image = np.random.default_rng(seed).normal(size=(5, 6, 3))
    channels_first = torch.tensor(np.moveaxis(image, -1, 0), requires_grad=True)
    variations = torch.stack([total_variation(channel[None]) for channel in channels_first])
    variations.sum().backward()
    return {
        "image": image,
        "variations": variations.detach().numpy().reshape(3),
        "gradient": np.moveaxis(channels_first.grad.numpy(), 0, -1),
    }


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
