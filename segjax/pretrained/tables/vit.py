"""Vision transformers by the names of timm, DeiT, DINOv2 and transformers; and Segmenter's."""

import functools
import math
import re
from collections.abc import Callable

import numpy as np

from segjax import ops
from segjax.models.backbones import vit
from segjax.pretrained.keys import KeyTable, Row, Shape
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
_TIMM_NAMES = ((r"^(encoder\.)?reg_token$", r"\1register_tokens"),)


def _resized(resize: vit.Resize) -> Callable:
    """Position embeddings for images of another size."""

    def resized(array: np.ndarray, shape: Shape) -> np.ndarray:
        if math.isqrt(array.shape[1]) ** 2 == array.shape[1]:
            # timm adds that of DINOv2's class token to the token itself, where there are registers.
            array = np.concatenate([np.zeros_like(array[:, :1]), array], axis=1)
        side = math.isqrt(shape[1] - 1)
        result = np.asarray(vit.resize_positions(array, (side, side), resize))
        if result.shape != shape:
            raise ValueError(f"shape: expected {result.shape}, got {shape}")
        return result

    return resized


def _backbone(resize: vit.Resize) -> KeyTable:
    return KeyTable(
        _ENCODER,
        renames=_TIMM_NAMES,
        unused=_UNUSED,
        optional=(r"head\..*",),
        counters=False,
        stem="patch_embed.proj.weight",
        resized=(("pos_embed", _resized(resize)),),
    )


VIT = _backbone(vit.resize_bicubic)
DINOV2 = _backbone(vit.resize_with_offset)


def _on_vit(resize: vit.Resize, *rows: Row, heads: tuple[str, ...]) -> KeyTable:
    """The table of a model on a ViT; weights of that alone are known by their lack of a prefix."""
    tokens = "cls_token|dist_token|register_tokens|mask_token|pos_embed"
    layers = r"patch_embed\..*|blocks\..*|(norm|head|head_dist)\.\w+"
    return KeyTable(
        (*inside("encoder", "encoder", _ENCODER), *inside("decoder", "decoder", rows)),
        renames=(*_TIMM_NAMES, (rf"^(?=({tokens}|{layers})$)", "encoder.")),
        unused=_UNUSED,
        optional=(r"encoder\.head\..*",),
        counters=False,
        stem="encoder.patch_embed.proj.weight",
        heads=heads,
        backbone="encoder.",
        resized=((r"encoder\.pos_embed", _resized(resize)),),
    )


_LINEAR_HEAD = (r"decoder\.head\..*",)

_LINEAR = (("head", "head"),)

SEGMENTER_LINEAR = _on_vit(ops.resize, *_LINEAR, heads=_LINEAR_HEAD)
VIT_LINEAR = _on_vit(vit.resize_with_offset, *_LINEAR, heads=_LINEAR_HEAD)

_MASK_TRANSFORMER = (
    ("input", "proj_dec"),
    ("class_embedding", "cls_emb"),
    *_BLOCK,
    ("norm", "decoder_norm"),
    # These are arrays of the original, not layers: they multiply from the right as ours do.
    ("patch_projection/kernel", "proj_patch"),
    ("class_projection/kernel", "proj_classes"),
    ("mask_norm", "mask_norm"),
)
_MASK_HEAD = (r"decoder\.mask_norm\..*", r"decoder\.cls_emb")

SEGMENTER_MASK = _on_vit(ops.resize, *_MASK_TRANSFORMER, heads=_MASK_HEAD)

# transformers' ViT and DeiT, which have an ε of 1e-12, and its DINOv2: by the names of version 5.
_TRANSFORMERS = (
    ("class_token", "embeddings.cls_token"),
    ("distillation_token", "embeddings.distillation_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("position_embedding", "embeddings.position_embeddings"),
    ("patch_embedding", "embeddings.patch_embeddings.projection"),
    ("norm", "layernorm"),
    ("head", "classifier"),
)
_TRANSFORMERS_BLOCK = (
    ("attention/qkv", ("attention.q_proj", "attention.k_proj", "attention.v_proj")),
    ("attention/output", "attention.o_proj"),
    ("scale{i}/scale", "layer_scale{i}.lambda1"),
    ("fc{i}", "mlp.fc{i}"),
)
_VIT_BLOCKS = (
    *inside("block{b}", "layers.{b}", _TRANSFORMERS_BLOCK),
    ("block{b}/norm1", "layers.{b}.layernorm_before"),
    ("block{b}/norm2", "layers.{b}.layernorm_after"),
)
_DINOV2_BLOCKS = (
    *inside("block{b}", "encoder.layer.{b}", _TRANSFORMERS_BLOCK),
    ("block{b}/norm{i}", "encoder.layer.{b}.norm{i}"),
)
# Those of version 4, which the files on the hub have.
_OLD_NAMES = (
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def _transformers(
    blocks: tuple[Row, ...],
    resize: vit.Resize,
    *decoder: Row,
    renames: tuple[tuple[str, str], ...] = _OLD_NAMES,
    heads: tuple[str, ...] = (),
) -> KeyTable:
    """The table of a ViT of transformers, alone or with a decoder."""
    start = "encoder." if decoder else ""
    rows = (*_TRANSFORMERS, *blocks)
    if decoder:
        rows = (*inside("encoder", "encoder", rows), *inside("decoder", "decoder", decoder))
    parts = r"embeddings|layers|encoder\.layer|layernorm|pooler|\w*classifier"
    prefix = re.escape(start)
    return KeyTable(
        rows,
        renames=(
            (r"^(vit|deit|dinov2|dinov2_with_registers)\.", ""),
            *renames,
            (r"^cls_classifier\.", "classifier."),
            (rf"^(?=({parts})\.)", start),
        ),
        unused=(rf"{prefix}(pooler\.|distillation_classifier\.|embeddings\.mask_token).*",),
        optional=(rf"{prefix}classifier\..*",),
        counters=False,
        stem=f"{start}embeddings.patch_embeddings.projection.weight",
        heads=heads,
        backbone=start or (),
        resized=((rf"{prefix}embeddings\.position_embeddings", _resized(resize)),),
    )


_transformers_vit = functools.partial(
    _transformers, _VIT_BLOCKS, renames=((r"^encoder\.layer\.", "layers."), *_OLD_NAMES)
)
VIT_TRANSFORMERS = _transformers_vit(vit.resize_bicubic)
SEGMENTER_LINEAR_TRANSFORMERS = _transformers_vit(ops.resize, *_LINEAR, heads=_LINEAR_HEAD)
SEGMENTER_MASK_TRANSFORMERS = _transformers_vit(ops.resize, *_MASK_TRANSFORMER, heads=_MASK_HEAD)

_transformers_dinov2 = functools.partial(_transformers, _DINOV2_BLOCKS, vit.resize_with_offset)
DINOV2_TRANSFORMERS = _transformers_dinov2()
VIT_LINEAR_TRANSFORMERS = _transformers_dinov2(*_LINEAR, heads=_LINEAR_HEAD)
