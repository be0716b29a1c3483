"""Hugging Face's CLIPSeg, plain and refined: writes hf_clipseg.npz.

Run `python hf_clipseg.py` where torch and transformers are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

FEATURES, DEPTH, HEADS, EMBEDDING, PATCH, SIZE = 12, 4, 3, 8, 16, 64
REDUCED, REDUCED_HEADS, HIDDEN, BLOCKS = 8, 2, 10, (0, 2, 3)
VOCABULARY, LENGTH = 40, 7
MODELS = ("plain", "refined")


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Images larger than the position embeddings are for, and texts that end early."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY - 2, (2, LENGTH))
    for row, end in zip(ids, (6, 3), strict=True):
        row[end], row[end + 1 :] = VOCABULARY - 1, 0
    images = rng.normal(size=(2, SIZE + PATCH, SIZE + PATCH, 3))
    return {"images": images, "prompts": rng.normal(size=(2, SIZE, SIZE, 3)), "ids": ids}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Logits of each image with its text and with its image prompt, and a gradient, by model."""
    import torch
    import transformers

    arrays = inputs(seed)
    images, prompts = (
        torch.tensor(np.moveaxis(arrays[name], -1, 1)) for name in ("images", "prompts")
    )
    ids = torch.tensor(arrays["ids"])
    shared = {
        "hidden_size": FEATURES,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * FEATURES,
        "hidden_act": "quick_gelu",
    }
    text = shared | {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
    text |= {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": 0}
    for name in MODELS:
        config = transformers.CLIPSegConfig(
            text_config=text,
            vision_config=shared | {"patch_size": PATCH, "image_size": SIZE},
            projection_dim=EMBEDDING,
            extract_layers=BLOCKS,
            reduce_dim=REDUCED,
            decoder_num_attention_heads=REDUCED_HEADS,
            decoder_intermediate_size=HIDDEN,
            use_complex_transposed_convolution=name == "refined",
        )
        model = transformers.CLIPSegForImageSegmentation(config).double().eval()
        load_drawn(model)
        outputs = model(pixel_values=images, input_ids=ids, interpolate_pos_encoding=True)
        arrays[f"{name} text"] = outputs.logits.detach().numpy()
        by_image = model(
            pixel_values=images, conditional_pixel_values=prompts, interpolate_pos_encoding=True
        )
        arrays[f"{name} image"] = by_image.logits.detach().numpy()
        cosines = torch.cos(torch.arange(outputs.logits.numel(), dtype=torch.float64))
        torch.sum(outputs.logits * cosines.reshape(outputs.logits.shape)).backward()
        slopes = {
            key: float((p.grad.numpy() * np.cos(np.arange(p.numel())).reshape(p.shape)).sum())
            for key, p in model.named_parameters()
            if p.grad is not None and key.startswith("decoder")
        }
        arrays[f"{name} keys"] = np.array(sorted(slopes))
        arrays[f"{name} slopes"] = np.array([slopes[key] for key in sorted(slopes)])
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
