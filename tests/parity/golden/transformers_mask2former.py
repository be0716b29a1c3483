"""Hugging Face's Mask2Former, outputs and gradients: writes transformers_mask2former.npz.

Run `python transformers_mask2former.py` where torch and transformers are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

CLASSES, QUERIES = 3, 7
# Of a small model: channels of pixels and queries, heads, layers of both decoders.
FEATURES, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 32, 4, 1, 2
# Of its Swin: channels and blocks of the stages, and the windows' side.
SWIN_FEATURES, SWIN_STAGES, WINDOW = 8, (1, 1, 1, 1), 4
# Keys in whose arrays' direction the loss's gradient is kept: one number each.
KEYS = [
    "model.pixel_level_module.encoder.swin.embeddings.patch_embeddings.projection.weight",
    "model.pixel_level_module.encoder.hidden_states_norms.stage1.weight",
    "model.pixel_level_module.decoder.level_embed",
    "model.pixel_level_module.decoder.input_projections.0.0.weight",
    "model.pixel_level_module.decoder.input_projections.2.1.bias",
    "model.pixel_level_module.decoder.encoder.layers.0.self_attn.sampling_offsets.weight",
    "model.pixel_level_module.decoder.encoder.layers.0.self_attn.sampling_offsets.bias",
    "model.pixel_level_module.decoder.encoder.layers.0.self_attn.attention_weights.weight",
    "model.pixel_level_module.decoder.encoder.layers.0.self_attn.value_proj.weight",
    "model.pixel_level_module.decoder.encoder.layers.0.fc1.weight",
    "model.pixel_level_module.decoder.adapter_1.0.weight",
    "model.pixel_level_module.decoder.layer_1.1.weight",
    "model.pixel_level_module.decoder.mask_projection.weight",
    "model.transformer_module.queries_embedder.weight",
    "model.transformer_module.queries_features.weight",
    "model.transformer_module.level_embed.weight",
    "model.transformer_module.decoder.layers.0.cross_attn.in_proj_weight",
    "model.transformer_module.decoder.layers.1.cross_attn.in_proj_bias",
    "model.transformer_module.decoder.layers.1.self_attn.q_proj.weight",
    "model.transformer_module.decoder.layers.0.self_attn.out_proj.weight",
    "model.transformer_module.decoder.layers.1.fc2.weight",
    "model.transformer_module.decoder.layernorm.weight",
    "model.transformer_module.decoder.mask_predictor.mask_embedder.1.0.weight",
    "class_predictor.weight",
]


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The model's outputs on images, and gradients.

    `classes` and `masks` are stacked: of the queries before and after each layer, the masks every
    third row and column; `gradient` holds the slopes of `Σ classes · cos(index) + Σ masks ·
    cos(index)`, both whole, along the weights of `KEYS`.
    """
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    rng = np.random.default_rng(seed)
    images = rng.integers(-8, 9, size=(2, 69, 83, 3)) / 4
    x = torch.tensor(np.moveaxis(images, -1, 1))
    swin = SwinConfig(
        image_size=64,
        embed_dim=SWIN_FEATURES,
        depths=SWIN_STAGES,
        num_heads=(1, 2, 4, 8),
        window_size=WINDOW,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=FEATURES,
        mask_feature_size=FEATURES,
        hidden_dim=FEATURES,
        encoder_feedforward_dim=4 * FEATURES,
        dim_feedforward=8 * FEATURES,
        encoder_layers=ENCODER_LAYERS,
        decoder_layers=1 + DECODER_LAYERS,
        num_attention_heads=HEADS,
        num_queries=QUERIES,
        num_labels=CLASSES,
        output_auxiliary_logits=True,
    )
    model = Mask2FormerForUniversalSegmentation(config).double()
    model.set_attn_implementation("sdpa")  # which computes in float64
    load_drawn(model)
    model.eval()
    output = model(x)
    layers = [
        *((a["class_queries_logits"], a["masks_queries_logits"]) for a in output.auxiliary_logits),
        (output.class_queries_logits, output.masks_queries_logits),
    ]
    classes, masks = map(torch.stack, zip(*layers, strict=True))

    def along(values):
        cosines = torch.cos(torch.arange(values.numel(), dtype=torch.float64))
        return torch.sum(values * cosines.reshape(values.shape))

    (along(classes) + along(masks)).backward()
    parameters = dict(model.named_parameters())
    slopes = [(parameters[key].grad * parameters[key]).sum().item() for key in KEYS]
    return {
        "images": images,
        "classes": classes.detach().numpy(),
        "masks": masks[..., ::3, ::3].detach().numpy(),
        "gradient": np.array(slopes),
    }


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
