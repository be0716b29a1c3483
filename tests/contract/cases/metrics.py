"""Cases of `segjax.metrics`."""

from arguments import Case, classes, counts, mask

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
    ),
    *(
        Case(f"metrics.{name}", lambda h, w: {"matrix": counts(3, 3)})
        for name in (
            "class_iou",
            "class_dice",
            "mean_iou",
            "dice_score",
            "pixel_accuracy",
            "frequency_weighted_iou",
        )
    ),
]
