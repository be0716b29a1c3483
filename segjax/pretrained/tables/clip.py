"""CLIP by the names of OpenAI and open_clip, and of Hugging Face; SigLIP by those of the latter."""

import numpy as np

from segjax.pretrained.keys import KeyTable, Layout, Row
from segjax.pretrained.tables.torchvision import RESNET, inside

_OPENAI_BLOCK = (
    ("norm{i}", "ln_{i}"),
    ("attention/qkv", "attn.in_proj_"),
    ("attention/output", "attn.out_proj"),
    ("fc1", "mlp.c_fc"),
    ("fc2", "mlp.c_proj"),
)
_OPENAI_BLOCKS = inside("block{b}", "transformer.resblocks.{b}", _OPENAI_BLOCK)
_OPENAI_IMAGE = (
    ("class_token", "class_embedding"),
    ("position_embedding", "positional_embedding"),
    ("patch_embedding", "conv1"),
    ("norm_pre", "ln_pre"),
    *_OPENAI_BLOCKS,
    ("norm_post", "ln_post"),
    # An array of the original, not a layer: it multiplies from the right as ours does.
    ("projection/kernel", "proj"),
)
_OPENAI_TEXT = (
    ("token_embedding", "token_embedding.weight"),
    ("position_embedding", "positional_embedding"),
    *_OPENAI_BLOCKS,
    ("norm", "ln_final"),
    ("projection/kernel", "text_projection"),
)

_OPENAI_RESNET = (
    ("stem_conv{i}", "conv{i}"),
    ("stem_norm{i}", "bn{i}"),
    *(row for row in RESNET if not row[0].startswith("stem")),
    ("position_embedding", "attnpool.positional_embedding"),
    ("query", "attnpool.q_proj"),
    ("key", "attnpool.k_proj"),
    ("value", "attnpool.v_proj"),
    ("output", "attnpool.c_proj"),
)

_BLOCK = (
    ("norm{i}", "layer_norm{i}"),
    ("attention/qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("attention/output", "self_attn.out_proj"),
    ("fc{i}", "mlp.fc{i}"),
)
_BLOCKS = inside("block{b}", "encoder.layers.{b}", _BLOCK)
_TEXT = (
    ("token_embedding", "embeddings.token_embedding.weight"),
    ("position_embedding", "embeddings.position_embedding.weight"),
    *_BLOCKS,
    ("norm", "final_layer_norm"),
)
_IMAGE = (
    ("position_embedding", "embeddings.position_embedding.weight"),
    ("patch_embedding", "embeddings.patch_embedding"),
    *_BLOCKS,
    ("norm_post", "post_layernorm"),
)
_CLIP_IMAGE = (
    *_IMAGE,
    ("class_token", "embeddings.class_embedding"),
    ("norm_pre", "pre_layrnorm"),  # as it is spelt there
)
_PROBE = Layout(lambda x: x[None], lambda x: x[0])
_POOL = (
    ("probe", "probe", _PROBE),
    (("attention/query", "attention/key", "attention/value"), "attention.in_proj_"),
    ("attention/output", "attention.out_proj"),
    ("norm", "layernorm"),
    ("fc{i}", "mlp.fc{i}"),
)
_NUMBER = Layout(lambda x: x.reshape(1), lambda x: x.reshape(()))


def _openai(image: tuple[Row, ...], *, counters: bool) -> KeyTable:
    return KeyTable(
        (
            *inside("image_tower", "visual", image),
            *((f"text_tower/{row[0]}", row[1]) for row in _OPENAI_TEXT),
            ("logit_scale", "logit_scale"),
        ),
        # Numbers that its files hold beside the arrays, and open_clip's mask.
        unused=("input_resolution", "context_length", "vocab_size", "attn_mask"),
        counters=counters,
        stem="visual.conv1.weight",
    )


CLIP_OPENAI = _openai(_OPENAI_IMAGE, counters=False)
CLIP_RESNET = _openai(_OPENAI_RESNET, counters=True)
CLIP = KeyTable(
    (
        *inside("image_tower", "vision_model", _CLIP_IMAGE),
        *inside("text_tower", "text_model", _TEXT),
        ("image_tower/projection", "visual_projection"),
        ("text_tower/projection", "text_projection"),
        ("logit_scale", "logit_scale"),
    ),
    unused=(r".*\.position_ids",),
    counters=False,
    stem="vision_model.embeddings.patch_embedding.weight",
)


def _upscaling(side: int) -> Layout:
    """A transposed convolution whose kernel is as large as its stride: a matrix of ours."""

    def theirs(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x.reshape(len(x), side, side, -1), -1, 1)

    return Layout(theirs, lambda x: np.moveaxis(x, 1, -1).reshape(len(x), -1))


_DECODER_LAYER = (
    ("self_attention/query", "self_attn.q_proj"),
    ("self_attention/key", "self_attn.k_proj"),
    ("self_attention/value", "self_attn.v_proj"),
    ("self_attention/output", "self_attn.out_proj"),
    ("norm{i}", "layer_norm{i}"),
    ("fc{i}", "mlp.fc{i}"),
)


def _clipseg(*rows: Row) -> KeyTable:
    decoder = (
        ("film_mul", "film_mul"),
        ("film_add", "film_add"),
        ("reduce{l}", "reduces.{l}"),
        *inside("layer{l}", "layers.{l}", _DECODER_LAYER),
        *rows,
    )
    return KeyTable(
        (*inside("clip", "clip", CLIP.rows), *inside("decoder", "decoder", decoder)),
        unused=(r".*\.position_ids",),
        counters=False,
        stem="clip.vision_model.embeddings.patch_embedding.weight",
    )


CLIPSEG = _clipseg(
    ("upscale/kernel/kernel", "transposed_convolution.weight", _upscaling(16)),
    ("upscale/bias", "transposed_convolution.bias"),
)
CLIPSEG_REFINED = _clipseg(
    ("conv", "transposed_convolution.0"),
    ("upscale1/kernel/kernel", "transposed_convolution.2.weight", _upscaling(4)),
    ("upscale1/bias", "transposed_convolution.2.bias"),
    ("upscale2/kernel/kernel", "transposed_convolution.4.weight", _upscaling(4)),
    ("upscale2/bias", "transposed_convolution.4.bias"),
)
SIGLIP = KeyTable(
    (
        *inside("image_tower", "vision_model", _IMAGE),
        *inside("image_tower/pool", "vision_model.head", _POOL),
        *inside("text_tower", "text_model", _TEXT),
        ("text_tower/projection", "text_model.head"),
        ("logit_scale", "logit_scale", _NUMBER),
        ("logit_bias", "logit_bias", _NUMBER),
    ),
    unused=(r".*\.position_ids",),
    counters=False,
    stem="vision_model.embeddings.patch_embedding.weight",
)
