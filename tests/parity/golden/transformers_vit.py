"""Hugging Face's ViT, DeiT and DINOv2 with registers: writes transformers_vit.npz.

Run `python transformers_vit.py` where torch and transformers are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

FEATURES, DEPTH, HEADS, PATCH, SIZE = 12, 2, 3, 4, 12
MODELS = ("ViT", "DeiT", "Dinov2WithRegisters")


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The last tokens of each model, by its name."""
    import torch
    import transformers

    images = np.random.default_rng(seed).normal(size=(2, SIZE, SIZE, 3))
    arrays = {"images": images}
    for name in MODELS:
        config = getattr(transformers, f"{name}Config")(
            hidden_size=FEATURES,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            patch_size=PATCH,
            image_size=SIZE,
            intermediate_size=4 * FEATURES,
        )
        model = getattr(transformers, f"{name}Model")(config).double().eval()
        load_drawn(model)
        with torch.no_grad():
            output = model(torch.tensor(np.moveaxis(images, -1, 1)))
        arrays[name] = output.last_hidden_state.numpy()
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
