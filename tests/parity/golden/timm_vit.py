"""Segmenter, DeiT and DINOv2 of few, narrow blocks, outputs and gradients: writes timm_vit.npz.

Their blocks are timm's; what the originals do around these is written out here, for Segmenter and
DINOv2 are on no index. Run `python timm_vit.py` where torch and timm are installed.
"""

import functools
import sys
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import load_drawn

CLASSES = 3
WIDTH, DEPTH, HEADS = 128, 2, 2
SIZE = 37, 50
# By original: side of a patch, and of the images that the position embeddings are for.
SIDES = {
    "mask": (16, 32),
    "distilled": (16, 80),
    "dinov2": (14, 42),
    "registers": (14, 70),
}
# Keys in whose arrays' direction the objective's gradient is kept: one number each.
KEYS = {
    "mask": [
        "encoder.pos_embed",
        "encoder.patch_embed.proj.weight",
        "encoder.blocks.0.attn.qkv.weight",
        "decoder.cls_emb",
        "decoder.proj_dec.weight",
        "decoder.blocks.1.mlp.fc2.bias",
        "decoder.mask_norm.weight",
    ],
    "distilled": ["dist_token", "pos_embed", "blocks.1.attn.proj.weight", "head.weight"],
    "dinov2": ["cls_token", "pos_embed", "blocks.1.ls1.gamma", "patch_embed.proj.bias"],
    "registers": ["register_tokens", "pos_embed", "blocks.0.ls2.gamma"],
}


def _encoder(name):
    import timm
    import torch

    patch, image = SIDES[name]
    options = {"patch_size": patch, "img_size": image}
    options |= {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    if name == "distilled":
        options |= {"dynamic_img_size": True, "dynamic_img_pad": True, "num_classes": 7}
        return timm.create_model("deit_tiny_distilled_patch16_224", **options)
    if name == "mask":
        options |= {"num_classes": 7, "norm_layer": torch.nn.LayerNorm}  # whose epsilon is 1e-5
    else:
        options |= {"num_classes": 0, "init_values": 1e-5}
    model = timm.models.VisionTransformer(**options)
    model.patch_embed.strict_img_size = False
    if name == "registers":
        model.register_tokens = torch.nn.Parameter(torch.zeros(1, 4, WIDTH))
    return model


def _positions(embedding, grid, *, offset=None, **options):
    """Those of the class token as they are, those of the patches interpolated."""
    import torch

    side = round((embedding.shape[1] - 1) ** 0.5)
    patches = embedding[:, 1:].reshape(1, side, side, -1).movedim(-1, 1)
    if offset is None:
        options["size"] = grid
    else:
        options["scale_factor"] = tuple((size + offset) / side for size in grid)
    patches = torch.nn.functional.interpolate(patches, **options)
    return torch.cat([embedding[:, :1], patches.movedim(1, -1).flatten(1, 2)], dim=1)


def _tokens(encoder, x, name):
    """All tokens after the last norm, and the patches' after the first block."""
    import torch

    grid = tuple(size // SIDES[name][0] for size in x.shape[2:])
    resizing = {
        "mask": {"mode": "bilinear"},
        "dinov2": {"mode": "bicubic", "offset": 0.1},
        "registers": {"mode": "bicubic", "antialias": True},
    }[name]
    x = torch.cat([encoder.cls_token.expand(len(x), -1, -1), encoder.patch_embed(x)], dim=1)
    x = x + _positions(encoder.pos_embed, grid, **resizing)
    if name == "registers":
        registers = encoder.register_tokens.expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
    for i, block in enumerate(encoder.blocks):
        x = block(x)
        if i == 0:
            middle = x[:, -grid[0] * grid[1] :]
    return encoder.norm(x), middle


def _segmenter():
    """A module with the names of Segmenter's, and its forward pass."""
    import torch
    from timm.models.vision_transformer import Block

    model = torch.nn.Module()
    model.encoder = _encoder("mask")
    model.decoder = part = torch.nn.Module()
    part.cls_emb = torch.nn.Parameter(torch.zeros(1, CLASSES, WIDTH))
    part.proj_patch = torch.nn.Parameter(torch.zeros(WIDTH, WIDTH))
    part.proj_classes = torch.nn.Parameter(torch.zeros(WIDTH, WIDTH))
    part.blocks = torch.nn.ModuleList(
        Block(WIDTH, HEADS, qkv_bias=True, norm_layer=torch.nn.LayerNorm) for _ in range(2)
    )
    part.proj_dec = torch.nn.Linear(WIDTH, WIDTH)
    part.decoder_norm = torch.nn.LayerNorm(WIDTH)
    part.mask_norm = torch.nn.LayerNorm(CLASSES)

    def forward(x):
        height, width = x.shape[2:]
        tokens, _ = _tokens(model.encoder, x, "mask")
        classes = part.cls_emb.expand(len(x), -1, -1)
        tokens = torch.cat([part.proj_dec(tokens[:, 1:]), classes], dim=1)
        for block in part.blocks:
            tokens = block(tokens)
        tokens = part.decoder_norm(tokens)
        patches = tokens[:, :-CLASSES] @ part.proj_patch
        classes = tokens[:, -CLASSES:] @ part.proj_classes
        unit = functools.partial(torch.nn.functional.normalize, dim=-1)
        masks = part.mask_norm(unit(patches) @ unit(classes).transpose(1, 2))
        masks = masks.transpose(1, 2).reshape(len(x), CLASSES, height // 16, width // 16)
        masks = torch.nn.functional.interpolate(masks, size=(height, width), mode="bilinear")
        return masks[:, :, : SIZE[0], : SIZE[1]].movedim(1, -1)

    return model, forward


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """For each original, under `<name> …`: what it gives for images, and what moves it.

    `output` are Segmenter's logits in every fourth row and column, and a backbone's tokens in every
    eighth channel; `middle` the patches after its first block, likewise. `gradient` holds the
    slopes of `Σ output · cos(index)`, over all of it, along the weights of `KEYS`. `attention` is
    that of the mask transformer's last block.
    """
    import torch

    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(2, *SIZE, 3)) / 255 - 0.5
    arrays = {"images": images}
    for name, keys in KEYS.items():
        patch = SIDES[name][0]
        x = torch.tensor(np.moveaxis(images, -1, 1))
        x = torch.nn.functional.pad(x, (0, -SIZE[1] % patch, 0, -SIZE[0] % patch))
        if name == "mask":
            model, forward = _segmenter()
        else:
            model = _encoder(name)
        model.double().eval()
        load_drawn(model)

        if name == "mask":
            attention = model.decoder.blocks[-1].attn
            attention.fused_attn = False
            attention.attn_drop.register_forward_hook(
                lambda module, inputs, output: arrays.update(
                    {"mask attention": output.detach().numpy()}
                )
            )
            output = forward(x)
            arrays[f"{name} output"] = output.detach().numpy()[:, ::4, ::4]
        else:
            if name == "distilled":
                # timm interpolates in float32, whatever the model is in.
                with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
                    output = model.forward_features(x)
                arrays["distilled classes"] = model.head(output[:, 0]).detach().numpy()
            else:
                output, middle = _tokens(model, x, name)
                arrays[f"{name} middle"] = middle.detach().numpy()[..., ::8]
            arrays[f"{name} output"] = output.detach().numpy()[..., ::8]
        cosines = torch.cos(torch.arange(output.numel(), dtype=torch.float64))
        total = torch.sum(output * cosines.reshape(output.shape))
        if name == "distilled":
            total = total + model.head(output[:, 0]).sum()
        total.backward()
        parameters = dict(model.named_parameters())
        arrays[f"{name} gradient"] = np.array(
            [(parameters[key].grad * parameters[key]).sum().item() for key in keys]
        )
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
