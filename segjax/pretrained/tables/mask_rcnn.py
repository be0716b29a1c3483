"""torchvision's Mask R-CNN, by its names of today and of before version 0.12."""

import numpy as np

from segjax.pretrained.keys import UP_CONV, KeyTable, Layout, Row
from segjax.pretrained.tables.torchvision import RESNET, inside

_SIDE = 7  # of the features that the box head gets


def _flatten_theirs(x: np.ndarray) -> np.ndarray:
    x = x.reshape(_SIDE, _SIDE, -1, x.shape[-1])
    return x.transpose(3, 2, 0, 1).reshape(x.shape[-1], -1)


def _flatten_ours(x: np.ndarray) -> np.ndarray:
    x = x.reshape(len(x), -1, _SIDE, _SIDE)
    return x.transpose(2, 3, 1, 0).reshape(-1, len(x))


# Of a matrix after flattening: ours has channels last, theirs first.
FLATTENED = Layout(_flatten_theirs, _flatten_ours)


def _conv_norm(ours: str, theirs: str) -> tuple[Row, ...]:
    return ((f"{ours}/conv", f"{theirs}.0"), (f"{ours}/norm", f"{theirs}.1"))


_SHARED: tuple[Row, ...] = (
    *inside("backbone", "backbone.body", RESNET),
    *_conv_norm("pyramid/inner{i}", "backbone.fpn.inner_blocks.{i}"),
    *_conv_norm("pyramid/layer{i}", "backbone.fpn.layer_blocks.{i}"),
    ("rpn/conv{i}", "rpn.head.conv.{i}.0"),
    ("rpn/logits", "rpn.head.cls_logits"),
    ("rpn/deltas", "rpn.head.bbox_pred"),
    ("box_head/logits", "roi_heads.box_predictor.cls_score"),
    ("box_head/deltas", "roi_heads.box_predictor.bbox_pred"),
    *_conv_norm("mask_head/conv{i}", "roi_heads.mask_head.{i}"),
    ("mask_head/up_conv/Dense_0", "roi_heads.mask_predictor.conv5_mask", UP_CONV),
    ("mask_head/up_conv/bias", "roi_heads.mask_predictor.conv5_mask.bias"),
    ("mask_head/logits", "roi_heads.mask_predictor.mask_fcn_logits"),
)
_OLD_NAMES = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    *(
        (rf"^roi_heads\.mask_head\.mask_fcn{i + 1}\.", f"roi_heads.mask_head.{i}.0.")
        for i in range(4)
    ),
)


def _table(box_head: tuple[Row, ...], *, counters: bool) -> KeyTable:
    return KeyTable(
        (*_SHARED, *box_head),
        renames=(*_OLD_NAMES, (r"^(?=(conv1|bn1|layer\d)\.)", "backbone.body.")),
        # A classifier's; and frozen norms have no use for counters.
        unused=(r"fc\..*", *(() if counters else (r".*\.num_batches_tracked",))),
        counters=counters,
        stem="backbone.body.conv1.weight",
        heads=(
            r"roi_heads\.box_predictor\.cls_score\..*",
            r"roi_heads\.box_predictor\.bbox_pred\..*",
            r"roi_heads\.mask_predictor\.mask_fcn_logits\..*",
        ),
        extra_classes=1,
        backbone="backbone.body.",
    )


MASK_RCNN = _table(
    (
        ("box_head/fc0", "roi_heads.box_head.fc6", FLATTENED),
        ("box_head/fc1", "roi_heads.box_head.fc7"),
    ),
    counters=False,
)
MASK_RCNN_V2 = _table(
    (
        *_conv_norm("box_head/conv{i}", "roi_heads.box_head.{i}"),
        ("box_head/fc0", "roi_heads.box_head.5", FLATTENED),
    ),
    counters=True,
)
