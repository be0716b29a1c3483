"""Hugging Face's MaskFormer, by the names of transformers 5; files on the hub have those of 4."""

from typing import Any

from segjax.pretrained.keys import KeyTable, Row
from segjax.pretrained.tables import swin
from segjax.pretrained.tables.detr import DECODER
from segjax.pretrained.tables.torchvision import RESNET_BACKBONE, inside

_BACKBONE = "model.pixel_level_module.encoder."

_PYRAMID = (
    ("stem_conv", "fpn.stem.0"),
    ("stem_norm", "fpn.stem.1"),
    ("side{i}_conv", "fpn.layers.{i}.proj.0"),
    ("side{i}_norm", "fpn.layers.{i}.proj.1"),
    ("smooth{i}_conv", "fpn.layers.{i}.block.0"),
    ("smooth{i}_norm", "fpn.layers.{i}.block.1"),
    ("output", "mask_projection"),
)
_HEADS = (
    *inside("pyramid", "model.pixel_level_module.decoder", _PYRAMID),
    ("queries", "model.transformer_module.queries_embedder.weight"),
    ("projection", "model.transformer_module.input_projection"),
    *inside("decoder", "model.transformer_module.decoder", DECODER),
    ("class_head", "class_predictor"),
    ("mask_head/fc{i}", "mask_embedder.{i}.0"),
)
_OLD_NAMES = (
    (r"\.out_proj\.", ".o_proj."),
    (r"(decoder\.layers\.\d+)\.fc(\d)\.", r"\1.mlp.fc\2."),
)

# Hugging Face's own ResNet, in which stages and convolutions count from 0.
_RESNET = (
    ("stem_conv", "embedder.embedder.convolution"),
    ("stem_norm", "embedder.embedder.normalization"),
    *(
        row
        for s in range(4)
        for row in inside(
            f"stage{s + 1}_block{{b}}",
            f"encoder.stages.{s}.layers.{{b}}",
            (
                *((f"conv{i + 1}", f"layer.{i}.convolution") for i in range(3)),
                *((f"norm{i + 1}", f"layer.{i}.normalization") for i in range(3)),
                ("shortcut_conv", "shortcut.convolution"),
                ("shortcut_norm", "shortcut.normalization"),
            ),
        )
    ),
)
# torchvision's and timm's ResNets as that.
_FROM_TORCHVISION = (
    (r"^(resnet\.)?(?=(embedder|encoder\.stages|conv1|bn1|layer\d)\.)", _BACKBONE),
    (r"(?<=level_module\.encoder\.)conv1\.", "embedder.embedder.convolution."),
    (r"(?<=level_module\.encoder\.)bn1\.", "embedder.embedder.normalization."),
    *((rf"\.layer{s + 1}\.(\d+)\.", rf".encoder.stages.{s}.layers.\1.") for s in range(4)),
    *((rf"\.conv{i + 1}\.", f".layer.{i}.convolution.") for i in range(3)),
    *((rf"\.bn{i + 1}\.", f".layer.{i}.normalization.") for i in range(3)),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
)


def _table(
    rows: tuple[Row, ...],
    renames: tuple[tuple[str, str], ...],
    stem: str,
    unused: tuple[str, ...],
    **options: Any,
) -> KeyTable:
    """The table of a MaskFormer on a backbone; the arguments speak of that."""
    return KeyTable(
        (*inside("backbone", _BACKBONE.removesuffix("."), rows), *_HEADS),
        renames=(*_OLD_NAMES, *renames),
        unused=(r"criterion\.empty_weight", *unused),
        stem=f"{_BACKBONE}{stem}.weight",
        heads=(r"class_predictor\..*",),
        extra_classes=1,
        backbone=_BACKBONE,
        **options,
    )


MASKFORMER_RESNET = _table(
    _RESNET, _FROM_TORCHVISION, "embedder.embedder.convolution", RESNET_BACKBONE.unused
)
MASKFORMER_SWIN = _table(
    swin.rows(swin.OLD),
    swin.renames(swin.OLD, _BACKBONE),
    "model.embeddings.patch_embeddings.projection",
    swin.UNUSED,
    optional=swin.OPTIONAL,
    resized=swin.RESIZED,
)
