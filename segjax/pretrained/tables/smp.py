"""What segmentation-models-pytorch builds on torchvision's ResNets."""

from segjax.pretrained.keys import KeyTable, Row
from segjax.pretrained.tables.torchvision import ASPP, RESNET, RESNET_BACKBONE, inside


def on_encoder(*rows: Row) -> KeyTable:
    """The table of a model on a ResNet; weights of that alone are known by their lack of a prefix.

    Args:
      *rows: of the decoder and the head.
    """
    return KeyTable(
        (*inside("backbone", "encoder", RESNET), *rows),
        renames=(*RESNET_BACKBONE.renames, (r"^(?=(conv1|bn1|layer\d)\.)", "encoder.")),
        unused=RESNET_BACKBONE.unused,
        optional=(r"classification_head\..*",),
        stem="encoder.conv1.weight",
        heads=(r"segmentation_head\.0\..*",),
        backbone="encoder.",
    )


DEEPLABV3PLUS_RESNET = on_encoder(
    *inside("aspp", "decoder.aspp.0", ASPP),
    ("aspp/branch{i}_conv/depthwise", "decoder.aspp.0.convs.{i}.0.0"),
    ("aspp/branch{i}_conv/pointwise", "decoder.aspp.0.convs.{i}.0.1"),
    ("deep_conv/depthwise", "decoder.aspp.1.0"),
    ("deep_conv/pointwise", "decoder.aspp.1.1"),
    ("deep_norm", "decoder.aspp.2"),
    ("shallow_conv", "decoder.block1.0"),
    ("shallow_norm", "decoder.block1.1"),
    ("fusion_conv/depthwise", "decoder.block2.0.0"),
    ("fusion_conv/pointwise", "decoder.block2.0.1"),
    ("fusion_norm", "decoder.block2.1"),
    ("logits", "segmentation_head.0"),
)
