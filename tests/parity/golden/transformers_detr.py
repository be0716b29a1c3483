"""Hugging Face's DETR with its mask head, outputs and gradients: writes transformers_detr.npz.

Run `python transformers_detr.py` where torch, transformers and timm are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

CLASSES = 3
# Of a small model, see `DetrConfig`, on a ResNet-18 of which each stage keeps one block.
QUERIES, FEATURES, HIDDEN, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 5, 32, 24, 8, 1, 2
# Height and width of the canvas, and of the picture in the second of two.
SIZE, PICTURE = (69, 83), (41, 70)
# Keys in whose arrays' direction the loss's gradient is kept: one number each.
KEYS = [
    "detr.model.backbone.model.layer4.0.conv1.weight",
    "detr.model.input_projection.weight",
    "detr.model.encoder.layers.0.self_attn.q_proj.weight",
    "detr.model.encoder.layers.0.mlp.fc1.weight",
    "detr.model.query_position_embeddings.weight",
    "detr.model.decoder.layers.0.encoder_attn.k_proj.weight",
    "detr.model.decoder.layers.1.self_attn.v_proj.bias",
    "detr.model.decoder.layernorm.weight",
    "detr.class_labels_classifier.weight",
    "detr.bbox_predictor.layers.1.weight",
    "bbox_attention.k_proj.weight",
    "mask_head.conv1.conv.weight",
    "mask_head.fpn_stages.0.fpn_adapter.weight",
    "mask_head.fpn_stages.2.refine.norm.weight",
]


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The model's outputs on two pictures, of which the second does not fill its canvas.

    `logits`, `boxes` and `masks` (every third row and column) are of the last layer, `first logits`
    and `first boxes` of the first, and `encoder` and `decoder` the last attention of each;
    `gradient` holds the slopes of `Σ output · cos(index)` over the first three, along the weights
    of `KEYS`.
    """
    import torch
    from transformers import DetrConfig, DetrForSegmentation

    rng = np.random.default_rng(seed)
    images = rng.integers(-8, 9, size=(2, *SIZE, 3)) / 4
    where = np.zeros(images.shape[:3], bool)
    where[0] = where[1, : PICTURE[0], : PICTURE[1]] = True
    config = DetrConfig(
        backbone="resnet18",
        num_labels=CLASSES,
        num_queries=QUERIES,
        d_model=FEATURES,
        encoder_ffn_dim=HIDDEN,
        decoder_ffn_dim=HIDDEN,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_layers=ENCODER_LAYERS,
        decoder_layers=DECODER_LAYERS,
    )
    config._attn_implementation = "eager"
    model = DetrForSegmentation(config).double().eval()
    backbone = model.detr.model.backbone.model
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        backbone[stage] = backbone[stage][:1]
    load_drawn(model)
    first = []
    decoder = model.detr.model.decoder
    decoder.layers[0].register_forward_hook(lambda _, inputs, state: first.append(state))
    x = torch.tensor(np.moveaxis(images, -1, 1))
    output = model(x, pixel_mask=torch.tensor(where).long(), output_attentions=True)
    arrays = {"logits": output.logits, "boxes": output.pred_boxes, "masks": output.pred_masks}

    def slope(array):
        cosines = torch.cos(torch.arange(array.numel(), dtype=torch.float64))
        return torch.sum(array * cosines.reshape(array.shape))

    for parameter in model.parameters():
        parameter.requires_grad_(True)
    sum(map(slope, arrays.values())).backward()
    parameters = dict(model.named_parameters())
    state = decoder.layernorm(first[0])
    arrays |= {
        "masks": output.pred_masks[..., ::3, ::3],
        "first logits": model.detr.class_labels_classifier(state),
        "first boxes": model.detr.bbox_predictor(state).sigmoid(),
        "encoder": output.encoder_attentions[-1],
        "decoder": output.cross_attentions[-1],
    }
    slopes = [(parameters[key].grad * parameters[key]).sum().item() for key in KEYS]
    return {
        "images": images,
        "where": where,
        "gradient": np.array(slopes),
        **{name: array.detach().numpy() for name, array in arrays.items()},
    }


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
