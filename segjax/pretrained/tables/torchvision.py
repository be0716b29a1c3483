"""torchvision's ResNets and what it builds on them."""

from segjax.pretrained.keys import KeyTable

RESNET = (
    ("stem_conv", "conv1"),
    ("stem_norm", "bn1"),
    ("stage{s}_block{b}/conv{i}", "layer{s}.{b}.conv{i}"),
    ("stage{s}_block{b}/norm{i}", "layer{s}.{b}.bn{i}"),
    ("stage{s}_block{b}/shortcut_conv", "layer{s}.{b}.downsample.0"),
    ("stage{s}_block{b}/shortcut_norm", "layer{s}.{b}.downsample.1"),
)


def inside(ours: str, theirs: str, rows: tuple[tuple[str, str], ...]) -> tuple:
    """The rows of a part, which the whole holds under these names."""
    return tuple((f"{ours}/{path}", f"{theirs}.{key}") for path, key in rows)


def _fcn_head(ours: str, theirs: str) -> tuple:
    rows = (("conv", "0"), ("norm", "1"), ("logits", "4"))
    return inside(ours, theirs, rows)


FCN_RESNET = KeyTable(
    (
        *inside("backbone", "backbone", RESNET),
        *_fcn_head("head", "classifier"),
        *_fcn_head("auxiliary_head", "aux_classifier"),
    )
)

DEEPLABV3_RESNET = KeyTable(
    (
        *inside("backbone", "backbone", RESNET),
        ("head/aspp/branch{i}_conv", "classifier.0.convs.{i}.0"),
        ("head/aspp/branch{i}_norm", "classifier.0.convs.{i}.1"),
        # An average over the picture comes first.
        ("head/aspp/pooling_conv", "classifier.0.convs.4.1"),
        ("head/aspp/pooling_norm", "classifier.0.convs.4.2"),
        ("head/aspp/project_conv", "classifier.0.project.0"),
        ("head/aspp/project_norm", "classifier.0.project.1"),
        ("head/conv", "classifier.1"),
        ("head/norm", "classifier.2"),
        ("head/logits", "classifier.4"),
        *_fcn_head("auxiliary_head", "aux_classifier"),
    )
)
