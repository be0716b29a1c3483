"""DETR by the names of transformers 5, by those of 4, and by its authors' own."""

import re

from segjax.pretrained.keys import KeyTable, Row
from segjax.pretrained.tables.torchvision import RESNET, RESNET_BACKBONE, inside

_ATTENTION = (
    ("query", "q_proj"),
    ("key", "k_proj"),
    ("value", "v_proj"),
    ("output", "o_proj"),
)
_LAYER = (
    *inside("self_attention", "self_attn", _ATTENTION),
    ("norm1", "self_attn_layer_norm"),
    ("fc{i}", "mlp.fc{i}"),
)
ENCODER = inside(
    "layer{l}",
    "layers.{l}",
    (*_LAYER, ("norm2", "final_layer_norm")),
)
DECODER = (
    *inside(
        "layer{l}",
        "layers.{l}",
        (
            *_LAYER,
            *inside("cross_attention", "encoder_attn", _ATTENTION),
            ("norm2", "encoder_attn_layer_norm"),
            ("norm3", "final_layer_norm"),
        ),
    ),
    ("norm", "layernorm"),
)


def _detector(start: str) -> tuple[Row, ...]:
    """Of all but the mask head, whose names begin with `start`."""
    return (
        *inside("backbone", f"{start}model.backbone.model", RESNET),
        ("projection", f"{start}model.input_projection"),
        *inside("encoder", f"{start}model.encoder", ENCODER),
        ("queries", f"{start}model.query_position_embeddings.weight"),
        *inside("decoder", f"{start}model.decoder", DECODER),
        ("class_head", f"{start}class_labels_classifier"),
        ("box_head/fc{i}", f"{start}bbox_predictor.layers.{{i}}"),
    )


_MASK_CONVS = ("conv1", "conv2", *(f"fpn_stages.{i}.refine" for i in range(3)))
_MASK_HEAD = (
    ("mask_head/query", "bbox_attention.q_proj"),
    ("mask_head/key", "bbox_attention.k_proj"),
    *((f"mask_head/conv{i}", f"mask_head.{name}.conv") for i, name in enumerate(_MASK_CONVS, 1)),
    *((f"mask_head/norm{i}", f"mask_head.{name}.norm") for i, name in enumerate(_MASK_CONVS, 1)),
    *((f"mask_head/adapter{i + 1}", f"mask_head.fpn_stages.{i}.fpn_adapter") for i in range(3)),
    ("mask_head/output", "mask_head.output_conv"),
)
_OLD_NAMES = (
    (r"backbone\.conv_encoder\.", "backbone."),
    (r"\.out_proj\.", ".o_proj."),
    (r"(layers\.\d+)\.fc(\d)\.", r"\1.mlp.fc\2."),
    (r"bbox_attention\.([qk])_linear\.", r"bbox_attention.\1_proj."),
    *(
        (rf"mask_head\.lay{i}\.", f"mask_head.{name}.conv.")
        for i, name in enumerate(_MASK_CONVS, 1)
    ),
    *((rf"mask_head\.gn{i}\.", f"mask_head.{name}.norm.") for i, name in enumerate(_MASK_CONVS, 1)),
    *(
        (rf"mask_head\.adapter{i + 1}\.", f"mask_head.fpn_stages.{i}.fpn_adapter.")
        for i in range(3)
    ),
    (r"mask_head\.out_lay\.", "mask_head.output_conv."),
)


def _hugging_face(start: str, *mask_head: Row) -> KeyTable:
    backbone = f"{start}model.backbone.model."
    return KeyTable(
        (*_detector(start), *mask_head),
        renames=(
            *_OLD_NAMES,
            (r"^(detr\.)?(?=(model|class_labels_classifier|bbox_predictor)\.)", start),
            # Its backbone may be theirs instead of timm's.
            (rf"^{re.escape(backbone)}(?=(embedder|encoder)\.)", "resnet."),
            *RESNET_BACKBONE.renames,
            (r"^(?=(conv1|bn1|layer\d)\.)", backbone),
        ),
        unused=_unused(mask_head),
        counters=False,
        stem=f"{backbone}conv1.weight",
        heads=(rf"{re.escape(start)}class_labels_classifier\..*",),
        extra_classes=1,
        backbone=(backbone, start) if mask_head else backbone,
    )


def _unused(mask_head: tuple[Row, ...]) -> tuple[str, ...]:
    masks = () if mask_head else (r"(mask_head|bbox_attention)\..*",)
    return (*RESNET_BACKBONE.unused, r".*\.num_batches_tracked", *masks)


DETR = _hugging_face("")
DETR_PANOPTIC = _hugging_face("detr.", *_MASK_HEAD)

_AUTHORS_ATTENTION = ((("query", "key", "value"), "in_proj_"), ("output", "out_proj"))
_AUTHORS_LAYER = (
    *inside("self_attention", "self_attn", _AUTHORS_ATTENTION),
    *inside("cross_attention", "multihead_attn", _AUTHORS_ATTENTION),
    ("norm{i}", "norm{i}"),
    ("fc{i}", "linear{i}"),
)
_AUTHORS_MASK_HEAD = (
    ("mask_head/query", "bbox_attention.q_linear"),
    ("mask_head/key", "bbox_attention.k_linear"),
    ("mask_head/conv{i}", "mask_head.lay{i}"),
    ("mask_head/norm{i}", "mask_head.gn{i}"),
    ("mask_head/adapter{i}", "mask_head.adapter{i}"),
    ("mask_head/output", "mask_head.out_lay"),
)


def _authors(start: str, *mask_head: Row) -> KeyTable:
    return KeyTable(
        (
            *inside("backbone", f"{start}backbone.0.body", RESNET),
            ("projection", f"{start}input_proj"),
            *inside("encoder/layer{l}", f"{start}transformer.encoder.layers.{{l}}", _AUTHORS_LAYER),
            ("queries", f"{start}query_embed.weight"),
            *inside("decoder/layer{l}", f"{start}transformer.decoder.layers.{{l}}", _AUTHORS_LAYER),
            ("decoder/norm", f"{start}transformer.decoder.norm"),
            ("class_head", f"{start}class_embed"),
            ("box_head/fc{i}", f"{start}bbox_embed.layers.{{i}}"),
            *mask_head,
        ),
        renames=((r"^(detr\.)?(?!mask_head|bbox_attention)", start),),
        unused=_unused(mask_head),
        counters=False,
        stem=f"{start}backbone.0.body.conv1.weight",
        heads=(rf"{re.escape(start)}class_embed\..*",),
        extra_classes=1,
        backbone=(f"{start}backbone.", start) if mask_head else f"{start}backbone.",
    )


DETR_AUTHORS = _authors("")
DETR_PANOPTIC_AUTHORS = _authors("detr.", *_AUTHORS_MASK_HEAD)
