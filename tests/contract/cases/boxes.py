"""Cases of boxes, their masks and their suppression: `segjax.ops`."""

import dataclasses

import numpy as np
from arguments import Case, classes, corners, fraction, mask, real

_JUNK = (np.nan, np.inf)


def _set(h, w, **extra):
    boxes = dataclasses.replace(corners(5), junk=_JUNK)
    return {"boxes": boxes, "scores": fraction(5), "where": mask(5)} | extra


CASES = [
    *(
        Case(f"ops.{name}", lambda h, w: {"a": corners(2), "b": corners(3)})
        for name in ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
    ),
    Case(
        "ops.convert_boxes",
        lambda h, w: {"boxes": corners(3)},
        {"source": "xyxy", "target": "cxcywh"},
    ),
    Case("ops.encode_boxes", lambda h, w: {"reference": corners(3), "proposals": corners(3)}),
    Case("ops.decode_boxes", lambda h, w: {"deltas": real(3, 4), "proposals": corners(3)}),
    Case("ops.mask_iou", lambda h, w: {"a": mask(2, h, w), "b": mask(3, h, w)}),
    Case(
        "ops.paste_masks",
        lambda h, w: {"masks": fraction(2, h, w), "boxes": corners(2)},
        {"shape": (4, 5)},
    ),
    Case("ops.nms", _set, {"iou_threshold": 0.1}, masked=("boxes", "scores")),
    Case(
        "ops.batched_nms",
        lambda h, w: _set(h, w, classes=classes(5, num_classes=2)),
        {"iou_threshold": 0.1},
        masked=("boxes", "scores", "classes"),
    ),
    Case("ops.soft_nms", _set, masked=("boxes", "scores")),
    Case(
        "ops.matrix_nms",
        lambda h, w: {
            "regions": mask(4, h, w),
            "scores": fraction(4),
            "classes": classes(4, num_classes=2),
            "where": mask(4),
        },
        masked=("scores", "classes"),
    ),
]
