"""torchvision's ResNets and what it builds on them."""

from segjax.pretrained.keys import KeyTable, Row

RESNET = (
    ("stem_conv", "conv1"),
    ("stem_norm", "bn1"),
    ("stage{s}_block{b}/conv{i}", "layer{s}.{b}.conv{i}"),
    ("stage{s}_block{b}/norm{i}", "layer{s}.{b}.bn{i}"),
    ("stage{s}_block{b}/shortcut_conv", "layer{s}.{b}.downsample.0"),
    ("stage{s}_block{b}/shortcut_norm", "layer{s}.{b}.downsample.1"),
)


# Hugging Face's ResNets, as torchvision's: its stages and convolutions count from 0.
_HUGGING_FACE = (
    (r"^resnet\.embedder\.embedder\.", "stem."),
    *((rf"^resnet\.encoder\.stages\.{s}\.layers\.", f"layer{s + 1}.") for s in range(4)),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    (r"^stem\.convolution\.", "conv1."),
    (r"^stem\.normalization\.", "bn1."),
)
# Of a classifier on a ResNet: torchvision's and timm's, and Hugging Face's.
_CLASSIFIER = (r"fc\..*", r"classifier\.1\.(weight|bias)")

RESNET_BACKBONE = KeyTable(RESNET, renames=_HUGGING_FACE, unused=_CLASSIFIER, stem="conv1.weight")


def inside(ours: str, theirs: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows of a part, which the whole holds under these names."""

    def within(whole, names):
        return whole + names if isinstance(names, str) else tuple(whole + name for name in names)

    return tuple(
        (within(f"{ours}/", paths), within(f"{theirs}.", keys), *layout)
        for paths, keys, *layout in rows
    )


def on_resnet(*rows: Row) -> KeyTable:
    """The table of a model on a ResNet; weights of that alone are known by their lack of a prefix.

    Args:
      *rows: of the heads.
    """
    return KeyTable(
        (*inside("backbone", "backbone", RESNET), *rows),
        renames=(*_HUGGING_FACE, (r"^(?=(conv1|bn1|layer\d)\.)", "backbone.")),
        unused=_CLASSIFIER[:1],
        optional=(r"aux_classifier\..*",),
        stem="backbone.conv1.weight",
        heads=(r"classifier\.4\..*", r"aux_classifier\.4\..*"),
        backbone="backbone.",
    )


def _fcn_head(ours: str, theirs: str) -> tuple[Row, ...]:
    rows = (("conv", "0"), ("norm", "1"), ("logits", "4"))
    return inside(ours, theirs, rows)


FCN_RESNET = on_resnet(
    *_fcn_head("head", "classifier"),
    *_fcn_head("auxiliary_head", "aux_classifier"),
)

ASPP = (
    ("branch{i}_conv", "convs.{i}.0"),
    ("branch{i}_norm", "convs.{i}.1"),
    # An average over the picture comes first.
    ("pooling_conv", "convs.4.1"),
    ("pooling_norm", "convs.4.2"),
    ("project_conv", "project.0"),
    ("project_norm", "project.1"),
)
DEEPLABV3_HEADS = (
    *inside("head/aspp", "classifier.0", ASPP),
    ("head/conv", "classifier.1"),
    ("head/norm", "classifier.2"),
    ("head/logits", "classifier.4"),
    *_fcn_head("auxiliary_head", "aux_classifier"),
)
DEEPLABV3_RESNET = on_resnet(*DEEPLABV3_HEADS)
