"""Cases of `segjax.metrics`."""

import jax.numpy as jnp
from arguments import Case, classes, corners, counts, fraction, mask

from segjax.typing import Instances, Panoptic


def _segments(arrays):
    """Targets and predictions share a table, of which `where` gives the rows in use."""
    table, valid = arrays["classes"], arrays["where"]
    return {
        "predictions": Panoptic(arrays["predicted"], table, valid),
        "targets": Panoptic(arrays["labelled"], table, valid, crowd=jnp.arange(3) == 1),
    }


def _objects(arrays):
    """The objects are the detections in another order, one of them a crowd."""
    scores, valid = arrays["scores"], arrays["where"]
    boxes, labels = arrays["boxes"], arrays["classes"]
    moved = (jnp.roll(x, 1, axis=0) for x in (boxes, labels, valid))
    return {
        "predictions": Instances(boxes, labels, valid, scores),
        "targets": Instances(*moved, crowd=jnp.arange(4) == 1),
    }


CASES = [
    Case(
        "metrics.confusion_matrix",
        lambda h, w: {
            "predictions": classes(h, w, num_classes=3),
            "labels": classes(h, w, num_classes=3),
            "where": mask(h, w),
        },
        {"num_classes": 3},
        masked=("predictions", "labels"),
        labels=("predictions", "labels"),
    ),
    *(
        Case(f"metrics.{name}", lambda h, w: {"matrix": counts(3, 3)})
        for name in (
            "class_iou",
            "class_dice",
            "mean_iou",
            "pixel_accuracy",
            "frequency_weighted_iou",
        )
    ),
    Case(
        "metrics.dice_score",
        lambda h, w: {"matrix": counts(3, 3), "where": mask(3)},
        {"average": "generalized"},
    ),
    Case(
        "metrics.label_boundaries",
        lambda h, w: {
            "predictions": classes(1, h, w, num_classes=3),
            "labels": classes(1, h, w, num_classes=3),
            "where": mask(1, h, w),
        },
        {"num_classes": 3},
        masked=("predictions", "labels"),
        labels=("predictions", "labels"),
    ),
    Case(
        "metrics.panoptic_quality",
        lambda h, w: {
            "predicted": classes(h, w, num_classes=4),
            "labelled": classes(h, w, num_classes=4),
            "classes": classes(3, num_classes=2),
            "where": mask(3),
        },
        {"num_classes": 2},
        masked=("classes",),
        labels=("classes",),
        build=_segments,
    ),
    Case(
        "metrics.average_precision",
        lambda h, w: {
            "boxes": corners(4),
            "scores": fraction(4),
            "classes": classes(4, num_classes=2),
            "where": mask(4),
        },
        {"num_classes": 2},
        masked=("scores", "classes"),
        labels=("classes",),
        build=_objects,
    ),
    Case(
        "metrics.voc_average_precision",
        lambda h, w: {
            "boxes": corners(4),
            "scores": fraction(4),
            "classes": classes(4, num_classes=2),
            "where": mask(4),
        },
        {"num_classes": 2},
        masked=("scores", "classes"),
        labels=("classes",),
        build=lambda arrays: _objects(arrays) | {"difficult": jnp.arange(4) == 2},
    ),
    Case(
        "metrics.expected_calibration_error",
        lambda h, w: {
            "probs": fraction(h, w, 3),
            "labels": classes(h, w, num_classes=3),
            "where": mask(h, w),
        },
        {"bins": 4},
        masked=("probs", "labels"),
        labels=("labels",),
    ),
]
