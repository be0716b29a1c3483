"""Hugging Face's EoMT, outputs and gradients: writes transformers_eomt.npz beside this file.

Run `python transformers_eomt.py` where torch and transformers are installed.
"""

import contextlib
import sys
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

CLASSES, QUERIES = 3, 7
FEATURES, DEPTH, HEADS = 32, 3, 2
QUERY_BLOCKS, REGISTERS = 2, 3
SIDE = 64  # of the images
# Keys in whose arrays' direction the gradient is kept: one number each.
_KEYS = [
    "embeddings.cls_token",
    "embeddings.register_tokens",
    "query.weight",
    "layers.0.attention.k_proj.weight",
    "layers.1.attention.q_proj.weight",
    "layers.1.attention.v_proj.bias",
    "layers.0.layer_scale1.lambda1",
    "layers.2.layer_scale2.lambda1",
    "layernorm.weight",
    "upscale_block.block.0.conv1.weight",
    "upscale_block.block.1.conv2.weight",
    "upscale_block.block.1.layernorm2d.bias",
    "mask_head.fc2.weight",
    "class_predictor.weight",
]
KEYS = {
    "dinov2": [
        *_KEYS,
        "embeddings.position_embeddings.weight",
        "embeddings.patch_embeddings.projection.weight",
        "layers.2.attention.out_proj.weight",
        "layers.2.mlp.fc1.weight",
    ],
    "dinov3": [
        *_KEYS,
        "embeddings.patch_embeddings.weight",
        "layers.0.attention.q_proj.bias",
        "layers.2.attention.o_proj.weight",
        "layers.2.mlp.up_proj.weight",
    ],
}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Of each model the outputs on images, and gradients, after its name as in "dinov2 classes".

    `classes` and `masks` are stacked, those before each block with queries and after the last,
    where every query is kept to its mask; the masks every third row and column. `gradient` holds
    the slopes of `Σ classes · cos(index) + Σ masks · cos(index)`, both whole, along the weights of
    `KEYS`. `plain classes` and `plain masks` are the output where no query is.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(-8, 9, size=(2, SIDE, SIDE, 3)) / 4
    outputs = {
        f"{name} {kind}": array
        for name in KEYS
        for kind, array in _outputs(_model(name), KEYS[name], images).items()
    }
    return {"images": images, **outputs}


def _model(name: str):
    import torch
    import transformers

    options = {
        "hidden_size": FEATURES,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "image_size": SIDE,
        "num_blocks": QUERY_BLOCKS,
        "num_queries": QUERIES,
        "num_register_tokens": REGISTERS,
        "num_labels": CLASSES,
    }
    if name == "dinov2":
        config = transformers.EomtConfig(**options)
        return transformers.EomtForUniversalSegmentation(config).double()
    config = transformers.EomtDinov3Config(
        intermediate_size=4 * FEATURES, pos_embed_rescale=None, **options
    )
    model = transformers.EomtDinov3ForUniversalSegmentation(config).double()
    # In float64 from the start, where transformers rounds to float32: `2π p` too.
    powers = torch.arange(0, 1, 4 * HEADS / FEATURES, dtype=torch.float64)
    model.rope_embeddings.inv_freq = config.rope_parameters["rope_theta"] ** -powers
    return model


@contextlib.contextmanager
def _in_float64(model):
    """Softmax and the patches' coordinates, where transformers goes down to float32."""
    import torch

    module = sys.modules[type(model).__module__]
    name = "get_patches_center_coordinates"
    centers = getattr(module, name, None)

    def softmax(x, dim, dtype=None):
        return torch.softmax(x, dim)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.nn.functional, "softmax", softmax))
        if centers:
            precise = lambda *args, **options: centers(*args, **options).double()
            stack.enter_context(mock.patch.object(module, name, precise))
        yield


def _outputs(model, keys: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    x = torch.tensor(np.moveaxis(images, -1, 1))
    model.set_attn_implementation("eager")
    load_drawn(model)
    predictions, predict = [], model.predict

    def remember(tokens):
        predictions.append(predict(tokens))
        return predictions[-1]

    model.predict = remember

    model.train()
    model.attn_mask_probs.fill_(1)
    with _in_float64(model):
        model(x)
    masks, classes = map(torch.stack, zip(*predictions, strict=True))

    def along(values):
        cosines = torch.cos(torch.arange(values.numel(), dtype=torch.float64))
        return torch.sum(values * cosines.reshape(values.shape))

    (along(classes) + along(masks)).backward()
    parameters = dict(model.named_parameters())
    slopes = [(parameters[key].grad * parameters[key]).sum().item() for key in keys]

    model.eval()
    model.attn_mask_probs.fill_(0)
    with _in_float64(model):
        plain = model(x)
    return {
        "classes": classes.detach().numpy(),
        "masks": masks[..., ::3, ::3].detach().numpy(),
        "gradient": np.array(slopes),
        "plain classes": plain.class_queries_logits.detach().numpy(),
        "plain masks": plain.masks_queries_logits[..., ::3, ::3].detach().numpy(),
    }


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
