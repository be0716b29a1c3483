"""EoMT by Hugging Face's names and by its authors'."""

import math

import numpy as np

from segjax.models.eomt import resize_places
from segjax.pretrained.keys import UP_CONV, KeyTable, Layout, Row, Shape
from segjax.pretrained.tables.torchvision import inside

# Theirs has an axis for the examples of a batch.
_ONE_EXAMPLE = Layout(lambda x: x[None], lambda x: x[0])


def _resized(array: np.ndarray, shape: Shape) -> np.ndarray:
    """Position embeddings for images of another size, with or without an axis for examples."""
    side = math.isqrt(shape[-2])
    result = np.asarray(resize_places(array.reshape(array.shape[-2:]), (side, side)))
    if result.shape != shape[-2:]:
        raise ValueError(f"shape: expected {result.shape}, got {shape}")
    return result.reshape(shape)


def _upscale(norm: str) -> tuple[Row, ...]:
    return (
        ("up_conv/Dense_0", "conv1", UP_CONV),
        ("up_conv/bias", "conv1.bias"),
        ("conv", "conv2"),
        ("norm", norm),
    )


_BLOCK = (
    ("norm{i}", "norm{i}"),
    ("attention/qkv", tuple(f"attention.{name}_proj" for name in "qkv")),
    ("attention/output", "attention.out_proj"),
    ("scale{i}/scale", "layer_scale{i}.lambda1"),
    ("fc{i}", "mlp.fc{i}"),
)
_HEADS = (
    ("heads/norm", "layernorm"),
    ("heads/class_head", "class_predictor"),
    *((f"heads/mask_head/fc{i}", f"mask_head.fc{i + 1}") for i in range(3)),
    *inside("heads/upscale{u}", "upscale_block.block.{u}", _upscale("layernorm2d")),
)
EOMT = KeyTable(
    (
        ("mask_probs", "attn_mask_probs"),
        ("class_token", "embeddings.cls_token", _ONE_EXAMPLE),
        ("register_tokens", "embeddings.register_tokens", _ONE_EXAMPLE),
        ("position_embedding", "embeddings.position_embeddings.weight"),
        ("patch_embedding", "embeddings.patch_embeddings.projection"),
        ("queries", "query.weight"),
        *inside("block{b}", "layers.{b}", _BLOCK),
        *_HEADS,
    ),
    unused=(r"criterion\.empty_weight",),
    counters=False,
    stem="embeddings.patch_embeddings.projection.weight",
    heads=(r"class_predictor\..*",),
    extra_classes=1,
    resized=((r"embeddings\.position_embeddings\.weight", _resized),),
)

_ROTARY_BLOCK = (
    ("norm{i}", "norm{i}"),
    *((f"attention/{name}", f"attention.{name[0]}_proj") for name in ("query", "key", "value")),
    ("attention/output", "attention.o_proj"),
    ("scale{i}/scale", "layer_scale{i}.lambda1"),
    ("fc1", "mlp.up_proj"),
    ("fc2", "mlp.down_proj"),
)
EOMT_DINOV3 = KeyTable(
    (
        ("mask_probs", "attn_mask_probs"),
        ("class_token", "embeddings.cls_token", _ONE_EXAMPLE),
        ("register_tokens", "embeddings.register_tokens", _ONE_EXAMPLE),
        ("patch_embedding", "embeddings.patch_embeddings"),
        ("queries", "query.weight"),
        *inside("block{b}", "layers.{b}", _ROTARY_BLOCK),
        *_HEADS,
    ),
    # What takes an image's hidden patches' place where a ViT is trained by hiding some.
    unused=(r"criterion\.empty_weight", r"embeddings\.mask_token"),
    counters=False,
    stem="embeddings.patch_embeddings.weight",
    heads=(r"class_predictor\..*",),
    extra_classes=1,
)

_BACKBONE = "network.encoder.backbone"
_AUTHORS_BLOCK = (
    ("norm{i}", "norm{i}"),
    ("attention/qkv", "attn.qkv"),
    ("attention/output", "attn.proj"),
    ("scale{i}/scale", "ls{i}.gamma"),
    ("fc{i}", "mlp.fc{i}"),
)
EOMT_AUTHORS = KeyTable(
    (
        ("mask_probs", "network.attn_mask_probs"),
        ("class_token", f"{_BACKBONE}.cls_token", _ONE_EXAMPLE),
        ("register_tokens", f"{_BACKBONE}.reg_token", _ONE_EXAMPLE),
        ("position_embedding", f"{_BACKBONE}.pos_embed", _ONE_EXAMPLE),
        ("patch_embedding", f"{_BACKBONE}.patch_embed.proj"),
        ("queries", "network.q.weight"),
        *inside("block{b}", f"{_BACKBONE}.blocks.{{b}}", _AUTHORS_BLOCK),
        ("heads/norm", f"{_BACKBONE}.norm"),
        ("heads/class_head", "network.class_head"),
        *((f"heads/mask_head/fc{i}", f"network.mask_head.{2 * i}") for i in range(3)),
        *inside("heads/upscale{u}", "network.upscale.{u}", _upscale("norm")),
    ),
    # The loss's weights of the classes, and what is subtracted from images and divides them.
    unused=(r"criterion\.empty_weight", r"network\.encoder\.pixel_(mean|std)"),
    counters=False,
    stem=f"{_BACKBONE}.patch_embed.proj.weight",
    heads=(r"network\.class_head\..*",),
    extra_classes=1,
    resized=((r"network\.encoder\.backbone\.pos_embed", _resized),),
)
