"""Hugging Face's MaskFormer on a Swin, outputs and gradients: writes transformers_maskformer.npz.

Run `python transformers_maskformer.py` where torch and transformers are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

CLASSES = 3
# Of a small model: pictures, windows and stages of sizes that do not divide one another.
SHAPE = (2, 37, 50, 3)
SWIN = {"embed_dim": 4, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 3}
DECODER = {"d_model": 64, "num_queries": 5, "decoder_layers": 2, "decoder_ffn_dim": 24}
HEADS = 4
# Keys in whose arrays' direction the loss's gradient is kept: one number each.
_SWIN = "model.pixel_level_module.encoder.model"
_PYRAMID = "model.pixel_level_module.decoder"
_DECODER = "model.transformer_module"
KEYS = [
    f"{_SWIN}.embeddings.patch_embeddings.projection.weight",
    f"{_SWIN}.embeddings.norm.weight",
    f"{_SWIN}.encoder.layers.0.blocks.0.attention.self.query.weight",
    f"{_SWIN}.encoder.layers.0.blocks.1.attention.self.relative_position_bias_table",
    f"{_SWIN}.encoder.layers.0.blocks.1.layernorm_before.bias",
    f"{_SWIN}.encoder.layers.0.downsample.reduction.weight",
    f"{_SWIN}.encoder.layers.2.blocks.0.attention.self.value.bias",
    f"{_SWIN}.encoder.layers.3.blocks.0.output.dense.weight",
    "model.pixel_level_module.encoder.hidden_states_norms.1.weight",
    f"{_PYRAMID}.fpn.stem.1.weight",
    f"{_PYRAMID}.fpn.layers.0.proj.1.bias",
    f"{_PYRAMID}.fpn.layers.2.block.1.weight",
    f"{_PYRAMID}.mask_projection.weight",
    f"{_DECODER}.queries_embedder.weight",
    f"{_DECODER}.input_projection.weight",
    f"{_DECODER}.decoder.layers.0.encoder_attn.q_proj.weight",
    f"{_DECODER}.decoder.layers.1.self_attn.v_proj.weight",
    f"{_DECODER}.decoder.layers.1.mlp.fc1.bias",
    f"{_DECODER}.decoder.layernorm.weight",
    "class_predictor.weight",
    "mask_embedder.1.0.weight",
]


def config():
    """The small model's."""
    from transformers import DetrConfig, MaskFormerConfig, SwinConfig

    stages = [f"stage{i}" for i in range(1, 5)]
    swin = SwinConfig(**SWIN, drop_path_rate=0.0, out_features=stages)
    heads = {f"{part}_attention_heads": HEADS for part in ("encoder", "decoder")}
    return MaskFormerConfig(
        backbone_config=swin,
        decoder_config=DetrConfig(**DECODER, **heads, dropout=0.0),
        fpn_feature_size=DECODER["d_model"],
        mask_feature_size=DECODER["d_model"],
        num_labels=CLASSES,
    )


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The model's outputs on images.

    `stage{i}` are the Swin's features. `classes` and `masks` are the logits, `auxiliary classes`
    and `auxiliary masks` those after the first layer of the decoder, under its last norm as in the
    paper's code: Hugging Face itself leaves it out there. `gradient` holds the slopes of
    `Σ output · cos(index)`, over these four, along the weights of `KEYS`.
    """
    import torch
    from transformers import MaskFormerForInstanceSegmentation

    rng = np.random.default_rng(seed)
    images = rng.integers(-8, 9, size=SHAPE) / 4
    model = MaskFormerForInstanceSegmentation(config()).double().eval()
    load_drawn(model)

    base = model.model(torch.tensor(np.moveaxis(images, -1, 1)), output_hidden_states=True)
    decoder = model.model.transformer_module.decoder
    first = decoder.layernorm(base.transformer_decoder_hidden_states[-2])
    pixels = base.pixel_decoder_last_hidden_state
    outputs = {}
    for name, tokens in (("", base.transformer_decoder_last_hidden_state), ("auxiliary ", first)):
        outputs[f"{name}classes"] = model.class_predictor(tokens)
        embedding = model.mask_embedder(tokens)
        outputs[f"{name}masks"] = torch.einsum("bqc,bchw->bqhw", embedding, pixels)
    total = 0
    for output in outputs.values():
        cosines = torch.cos(torch.arange(output.numel(), dtype=torch.float64))
        total += torch.sum(output * cosines.reshape(output.shape))
    total.backward()

    parameters = dict(model.named_parameters())
    arrays = {name: output.detach().numpy() for name, output in outputs.items()}
    for i, feature in enumerate(base.encoder_hidden_states):
        arrays[f"stage{i + 1}"] = np.moveaxis(feature.detach().numpy(), 1, -1)
    slopes = [(parameters[key].grad * parameters[key]).sum().item() for key in KEYS]
    return arrays | {"images": images, "gradient": np.array(slopes)}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
