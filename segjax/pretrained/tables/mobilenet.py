"""torchvision's MobileNetV3 and what it builds on it."""

from segjax.models.backbones.mobilenet_v3 import LARGE, SMALL, STEM_FEATURES, BlockSpec
from segjax.pretrained.keys import KeyTable, Row
from segjax.pretrained.tables.torchvision import DEEPLABV3_HEADS, inside


def _wrapped(ours: str, theirs: str) -> tuple[tuple[str, str], ...]:
    """A convolution and its norm."""
    return (f"{ours}_conv", f"{theirs}.0"), (f"{ours}_norm", f"{theirs}.1")


def _backbone(blocks: tuple[BlockSpec, ...]) -> tuple[tuple[str, str], ...]:
    """The original numbers the parts of a block, of which not every block has all."""
    rows = _wrapped("stem", "0")
    channels = STEM_FEATURES
    for i, block in enumerate(blocks):
        parts = ["expand"] * (block.expanded != channels)
        parts += ["depthwise", *["squeeze"] * block.squeeze, "project"]
        for j, part in enumerate(parts):
            ours, theirs = f"block{i}/{part}", f"{i + 1}.block.{j}"
            if part == "squeeze":
                rows += (f"{ours}/reduce", f"{theirs}.fc1"), (f"{ours}/expand", f"{theirs}.fc2")
            else:
                rows += _wrapped(ours, theirs)
        channels = block.features
    return rows + _wrapped("last", str(len(blocks) + 1))


def _alone(blocks: tuple[BlockSpec, ...]) -> KeyTable:
    rows = tuple((ours, f"features.{theirs}") for ours, theirs in _backbone(blocks))
    return KeyTable(rows, unused=(r"classifier\..*",), stem="features.0.0.weight")


MOBILENET_V3_LARGE = _alone(LARGE)
MOBILENET_V3_SMALL = _alone(SMALL)


def _on_backbone(blocks: tuple[BlockSpec, ...], *rows: Row, heads: tuple[str, ...]) -> KeyTable:
    """The table of a model on a MobileNetV3, which alone is known by how its keys begin."""
    return KeyTable(
        (*inside("backbone", "backbone", _backbone(blocks)), *rows),
        renames=((r"^features\.", "backbone."),),
        unused=(r"classifier\.[03]\.(weight|bias)",),  # ImageNet's
        optional=(r"aux_classifier\..*",),
        stem="backbone.0.0.weight",
        heads=heads,
        backbone="backbone.",
    )


def lraspp(blocks: tuple[BlockSpec, ...]) -> KeyTable:
    """The table of LR-ASPP on a MobileNetV3 of these blocks."""
    return _on_backbone(
        blocks,
        ("conv", "classifier.cbr.0"),
        ("norm", "classifier.cbr.1"),
        ("gate", "classifier.scale.1"),
        ("shallow_logits", "classifier.low_classifier"),
        ("deep_logits", "classifier.high_classifier"),
        heads=(r"classifier\.(low|high)_classifier\..*",),
    )


LRASPP_MOBILENET = lraspp(LARGE)
DEEPLABV3_MOBILENET = _on_backbone(
    LARGE, *DEEPLABV3_HEADS, heads=(r"classifier\.4\..*", r"aux_classifier\.4\..*")
)
