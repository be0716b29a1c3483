"""Hugging Face's Mask2Former, by the names of transformers 5; files on the hub have those of 4."""

from segjax.pretrained.keys import KeyTable, Row
from segjax.pretrained.tables import swin
from segjax.pretrained.tables.torchvision import RESNET, RESNET_BACKBONE, inside

_BACKBONE = "model.pixel_level_module.encoder"
_FUSED = (("query", "key", "value"), "in_proj_")
_OUTPUT = ("output", "out_proj")
_SEPARATE = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), _OUTPUT)

_DEFORMABLE_LAYER = (
    ("attention/offsets", "self_attn.sampling_offsets"),
    ("attention/weights", "self_attn.attention_weights"),
    ("attention/value", "self_attn.value_proj"),
    ("attention/output", "self_attn.output_proj"),
    ("norm1", "self_attn_layer_norm"),
    ("fc{i}", "fc{i}"),
    ("norm2", "final_layer_norm"),
)
_PIXEL_DECODER = (
    *((f"stage{4 - i}_projection", f"input_projections.{i}.0") for i in range(3)),
    *((f"stage{4 - i}_norm", f"input_projections.{i}.1") for i in range(3)),
    ("level_embedding", "level_embed"),
    *inside("layer{l}", "encoder.layers.{l}", _DEFORMABLE_LAYER),
    ("stage1_projection", "adapter_1.0"),
    ("stage1_norm", "adapter_1.1"),
    ("fusion_conv", "layer_1.0"),
    ("fusion_norm", "layer_1.1"),
    ("mask_projection", "mask_projection"),
)
_LAYER = (
    *inside("cross_attention", "cross_attn", (_FUSED, _OUTPUT)),
    ("norm1", "cross_attn_layer_norm"),
    *inside("self_attention", "self_attn", _SEPARATE),
    ("norm2", "self_attn_layer_norm"),
    ("fc{i}", "fc{i}"),
    ("norm3", "final_layer_norm"),
)
_DECODER = (
    ("query_positions", "queries_embedder.weight"),
    ("queries", "queries_features.weight"),
    ("scale_embedding", "level_embed.weight"),
    ("norm", "decoder.layernorm"),
    ("mask_head/fc{i}", "decoder.mask_predictor.mask_embedder.{i}.0"),
)


def _table(
    backbone: tuple[Row, ...], stem: str, renames: tuple[tuple[str, str], ...], **options: tuple
) -> KeyTable:
    """The table of a Mask2Former whose backbone has these rows."""
    return KeyTable(
        (
            *inside("backbone", _BACKBONE, backbone),
            *inside("pixel_decoder", "model.pixel_level_module.decoder", _PIXEL_DECODER),
            *inside("layer{l}", "model.transformer_module.decoder.layers.{l}", _LAYER),
            *((ours, f"model.transformer_module.{theirs}") for ours, theirs in _DECODER),
            ("class_head", "class_predictor"),
        ),
        renames=renames,
        counters=False,
        stem=f"{_BACKBONE}.{stem}.weight",
        heads=(r"class_predictor\..*",),
        extra_classes=1,
        backbone=f"{_BACKBONE}.",
        **options,
    )


# The loss's weights of the classes.
_UNUSED = (r"criterion\.empty_weight",)

MASK2FORMER_RESNET = _table(
    RESNET,
    "conv1",
    (
        # Its backbone may be Hugging Face's instead of timm's.
        (r"^model\.pixel_level_module\.encoder\.(?=(embedder|encoder)\.)", "resnet."),
        *RESNET_BACKBONE.renames,
        (r"^(?=(conv1|bn1|layer\d)\.)", f"{_BACKBONE}."),
    ),
    unused=(*_UNUSED, *RESNET_BACKBONE.unused, r".*\.num_batches_tracked"),
)
MASK2FORMER_SWIN = _table(
    swin.rows(swin.NEW),
    "swin.embeddings.patch_embeddings.projection",
    swin.renames(swin.NEW, f"{_BACKBONE}."),
    unused=(*_UNUSED, *swin.UNUSED),
    optional=swin.OPTIONAL,
    # Transformers 4 has no norm of the last features, nor do masks need one.
    idle=((r".*\.swin\.layernorm\.weight", 1.0), (r".*\.swin\.layernorm\.bias", 0.0)),
    resized=swin.RESIZED,
)
