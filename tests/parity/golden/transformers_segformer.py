"""Hugging Face's SegFormer, outputs and gradients: writes transformers_segformer.npz.

Run `python transformers_segformer.py` where torch and transformers are installed.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

CLASSES = 3
# The widths, the numbers of blocks and the decoder's width of a small model.
WIDTHS, STAGE_SIZES, FEATURES = (8, 16, 40, 64), (1, 1, 1, 1), 24
# Keys in whose arrays' direction the loss's gradient is kept: one number each.
KEYS = [
    "segformer.stages.0.patch_embeddings.proj.weight",
    "segformer.stages.0.blocks.0.attention.sequence_reduction.sequence_reduction.weight",
    "segformer.stages.1.blocks.0.attention.v_proj.bias",
    "segformer.stages.2.blocks.0.attention.q_proj.weight",
    "segformer.stages.2.blocks.0.mlp.dwconv.dwconv.weight",
    "segformer.stages.3.layer_norm.weight",
    "decode_head.linear_projections.2.proj.weight",
    "decode_head.linear_fuse.weight",
    "decode_head.batch_norm.weight",
]


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The model's output on images, trained and not.

    `logits` are of evaluation; `attention {i}` is its i-th block's map, whose softmax is taken in
    float32; `gradient` holds the slopes of training's `Σ logits · cos(index)` along the weights of
    `KEYS`, without dropout, and `mean` and `var` are the running statistics afterwards.
    """
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    rng = np.random.default_rng(seed)
    images = rng.integers(-8, 9, size=(2, 69, 83, 3)) / 4
    arrays = {"images": images}
    x = torch.tensor(np.moveaxis(images, -1, 1))
    config = SegformerConfig(
        hidden_sizes=WIDTHS,
        depths=STAGE_SIZES,
        decoder_hidden_size=FEATURES,
        num_labels=CLASSES,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    config._attn_implementation = "sdpa"  # which computes in float64
    model = SegformerForSemanticSegmentation(config).double()
    load_drawn(model)
    model.eval()
    with torch.no_grad():
        arrays["logits"] = np.moveaxis(model(x).logits.numpy(), 1, -1)
        model.set_attn_implementation("eager")
        for i, attention in enumerate(model(x, output_attentions=True).attentions):
            arrays[f"attention {i}"] = attention[:, :, ::16].numpy()
        model.set_attn_implementation("sdpa")

    model.train()
    logits = model(x).logits.movedim(1, -1)
    cosines = torch.cos(torch.arange(logits.numel(), dtype=torch.float64))
    torch.sum(logits * cosines.reshape(logits.shape)).backward()
    parameters = dict(model.named_parameters())
    arrays["gradient"] = np.array(
        [(parameters[key].grad * parameters[key]).sum().item() for key in KEYS]
    )
    for statistic in ("mean", "var"):
        arrays[statistic] = getattr(model.decode_head.batch_norm, f"running_{statistic}").numpy()
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
