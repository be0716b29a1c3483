"""timm's vision transformers, DeiT's and DINOv2's names, and Segmenter, which is built on them."""

import math

import numpy as np

from segjax import ops
from segjax.models.backbones import vit
from segjax.pretrained.keys import KeyTable, Shape
from segjax.pretrained.tables.torchvision import inside

_BLOCK = (
    ("block{b}/norm{i}", "blocks.{b}.norm{i}"),
    ("block{b}/attention/qkv", "blocks.{b}.attn.qkv"),
    ("block{b}/attention/output", "blocks.{b}.attn.proj"),
    ("block{b}/scale{i}/scale", "blocks.{b}.ls{i}.gamma"),
    ("block{b}/fc{i}", "blocks.{b}.mlp.fc{i}"),
)

_ENCODER = (
    ("class_token", "cls_token"),
    ("distillation_token", "dist_token"),
    ("register_tokens", "register_tokens"),
    ("position_embedding", "pos_embed"),
    ("patch_embedding", "patch_embed.proj"),
    *_BLOCK,
    ("norm", "norm"),
    ("head", "head"),
)

# What DeiT learns from its teacher with, and DINOv2 from hidden patches.
_UNUSED = (r"(encoder\.)?head_dist\..*", r"(encoder\.)?mask_token")


def _resized(resize: vit.Resize):
    """Position embeddings for images of another size."""

    def resized(array: np.ndarray, shape: Shape) -> np.ndarray:
        side = math.isqrt(shape[1] - 1)
        result = np.asarray(vit.resize_positions(array, (side, side), resize))
        if result.shape != shape:
            raise ValueError(f"shape is {shape}; due is {result.shape}")
        return result

    return resized


def _backbone(resize: vit.Resize) -> KeyTable:
    return KeyTable(
        _ENCODER,
        unused=_UNUSED,
        optional=(r"head\..*",),
        counters=False,
        stem="patch_embed.proj.weight",
        resized=(("pos_embed", _resized(resize)),),
    )


VIT = _backbone(vit.resize_bicubic)
DINOV2 = _backbone(vit.resize_with_offset)


def _on_vit(resize: vit.Resize, *rows: tuple[str, str], heads: tuple[str, ...]) -> KeyTable:
    """The table of a model on a ViT; weights of that alone are known by their lack of a prefix."""
    tokens = "cls_token|dist_token|register_tokens|mask_token|pos_embed"
    layers = r"patch_embed\..*|blocks\..*|(norm|head|head_dist)\.\w+"
    return KeyTable(
        (*inside("encoder", "encoder", _ENCODER), *inside("decoder", "decoder", rows)),
        renames=((rf"^(?=({tokens}|{layers})$)", "encoder."),),
        unused=_UNUSED,
        optional=(r"encoder\.head\..*",),
        counters=False,
        stem="encoder.patch_embed.proj.weight",
        heads=heads,
        backbone="encoder.",
        resized=((r"encoder\.pos_embed", _resized(resize)),),
    )


_LINEAR_HEAD = (r"decoder\.head\..*",)

SEGMENTER_LINEAR = _on_vit(ops.resize, ("head", "head"), heads=_LINEAR_HEAD)

SEGMENTER_MASK = _on_vit(
    ops.resize,
    ("input", "proj_dec"),
    ("class_embedding", "cls_emb"),
    *_BLOCK,
    ("norm", "decoder_norm"),
    # These are arrays of the original, not layers: they multiply from the right as ours do.
    ("patch_projection/kernel", "proj_patch"),
    ("class_projection/kernel", "proj_classes"),
    ("mask_norm", "mask_norm"),
    heads=(r"decoder\.mask_norm\..*", r"decoder\.cls_emb"),
)

VIT_LINEAR = _on_vit(vit.resize_with_offset, ("head", "head"), heads=_LINEAR_HEAD)
