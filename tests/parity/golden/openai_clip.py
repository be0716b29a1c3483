"""OpenAI's CLIP with a residual network and with a vision transformer: writes openai_clip.npz.

Run `python openai_clip.py` where torch, setuptools<70 and clip-anytorch are installed; the latter
has OpenAI's `model.py` as it is.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

EMBEDDING, SIZE = 8, 64
VOCABULARY, LENGTH, TEXT_FEATURES, TEXT_HEADS, TEXT_DEPTH = 40, 7, 12, 3, 2
STAGES, WIDTH = (1, 2, 1, 1), 4
PATCH, DEPTH, FEATURES = 16, 2, 128  # a head has 64 features
MODELS = ("resnet", "vit")
WEIGHTS = [[1.0, -2.0, 3.0], [2.0, 0.5, -1.0]]  # of the logits, for a gradient


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Images, and texts that end early."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY - 2, (3, LENGTH))
    for row, end in zip(ids, (6, 3, 4), strict=True):
        row[end], row[end + 1 :] = VOCABULARY - 1, 0
    return {"images": rng.normal(size=(2, SIZE, SIZE, 3)), "ids": ids}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Embeddings, logits, and slopes along cosines of the weights, by model."""
    import torch
    from clip.model import CLIP, LayerNorm

    LayerNorm.forward = torch.nn.LayerNorm.forward  # which is in float32 there
    arrays = inputs(seed)
    images = torch.tensor(np.moveaxis(arrays["images"], -1, 1))
    ids = torch.tensor(arrays["ids"])
    for name in MODELS:
        vision = (STAGES, WIDTH, None) if name == "resnet" else (DEPTH, FEATURES, PATCH)
        model = CLIP(
            EMBEDDING,
            SIZE,
            *vision,
            LENGTH,
            VOCABULARY,
            TEXT_FEATURES,
            TEXT_HEADS,
            TEXT_DEPTH,
        )
        model = model.double().eval()
        load_drawn(model)
        arrays[f"{name} images"] = model.encode_image(images).detach().numpy()
        arrays[f"{name} text"] = model.encode_text(ids).detach().numpy()
        logits, _ = model(images, ids)
        arrays[f"{name} logits"] = logits.detach().numpy()
        torch.sum(logits * torch.tensor(WEIGHTS)).backward()
        slopes = {
            key: float((p.grad.numpy() * np.cos(np.arange(p.numel())).reshape(p.shape)).sum())
            for key, p in model.named_parameters()
        }
        arrays[f"{name} keys"] = np.array(sorted(slopes))
        arrays[f"{name} slopes"] = np.array([slopes[key] for key in sorted(slopes)])
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
