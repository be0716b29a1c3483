"""Hugging Face's CLIP and SigLIP: writes hf_clip.npz.

Run `python hf_clip.py` where torch and transformers are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

# Of both towers. The width of a head is 64 in the originals.
FEATURES, DEPTH, HEADS, EMBEDDING, PATCH, SIZE = 12, 3, 3, 8, 4, 12
VOCABULARY, LENGTH = 40, 7
START, END = 38, 39
WEIGHTS = [[1.0, -2.0, 3.0], [2.0, 0.5, -1.0]]  # of the logits, for a gradient
MODELS = {"CLIP": "quick_gelu", "CLIP exact": "gelu", "Siglip": "gelu_tanh"}


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Images of the size of the position embeddings, larger ones, and texts that end early."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, START, (3, LENGTH))
    ids[:, 0] = START
    for row, end in zip(ids, (6, 3, 4), strict=True):
        row[end:] = 0
        row[end] = END
    return {
        "images": rng.normal(size=(2, SIZE, SIZE, 3)),
        "large": rng.normal(size=(2, 2 * SIZE, SIZE + PATCH, 3)),
        "ids": ids,
    }


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Embeddings, states of both towers, and slopes along cosines of the weights, by model."""
    import torch
    import transformers

    given = inputs(seed)
    arrays = dict(given)
    ids = torch.tensor(given["ids"])
    for name, activation in MODELS.items():
        kind = name.split()[0]
        shared = {
            "hidden_size": FEATURES,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": HEADS,
            "intermediate_size": 4 * FEATURES,
            "hidden_act": activation.replace("gelu_tanh", "gelu_pytorch_tanh"),
        }
        text = shared | {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
        text |= {"bos_token_id": START, "eos_token_id": END, "pad_token_id": 0}
        vision = shared | {"patch_size": PATCH, "image_size": SIZE}
        config = getattr(transformers, f"{kind}Config")(
            text_config=text, vision_config=vision, projection_dim=EMBEDDING
        )
        model = getattr(transformers, f"{kind}Model")(config).double().eval()
        load_drawn(model)
        for size in ("images", "large"):
            pixels = torch.tensor(np.moveaxis(given[size], -1, 1))
            outputs = model(
                input_ids=ids,
                pixel_values=pixels,
                interpolate_pos_encoding=True,
                output_hidden_states=True,
            )
            # Both models give embeddings of length 1.
            arrays[f"{name} {size}"] = outputs.image_embeds.detach().numpy()
            if size == "large":
                continue
            arrays[f"{name} text"] = outputs.text_embeds.detach().numpy()
            arrays[f"{name} logits"] = outputs.logits_per_image.detach().numpy()
            for tower in ("vision", "text"):
                states = getattr(outputs, f"{tower}_model_output").hidden_states
                arrays[f"{name} {tower} states"] = np.stack([x.detach().numpy() for x in states])
            torch.sum(outputs.logits_per_image * torch.tensor(WEIGHTS)).backward()
            slopes = {
                key: float((p.grad.numpy() * np.cos(np.arange(p.numel())).reshape(p.shape)).sum())
                for key, p in model.named_parameters()
            }
            arrays[f"{name} keys"] = np.array(sorted(slopes))
            arrays[f"{name} slopes"] = np.array([slopes[key] for key in sorted(slopes)])
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
