"""Cases of `segjax.losses`."""

from arguments import Case, classes, fraction, mask, real


def _overlap_cases(name: str) -> list[Case]:
    """A soft overlap of masks: one mask in all, and one for each channel."""
    masked = ("probs", "targets")
    return [
        Case(
            f"losses.{name}",
            lambda h, w: {
                "probs": fraction(h, w, 2),
                "targets": fraction(h, w, 2),
                "where": mask(h, w, 2),
            },
            masked=masked,
        ),
        Case(
            f"losses.{name}",
            lambda h, w: {
                "probs": fraction(h, w, 2),
                "targets": mask(h, w, 2),
                "where": mask(h, w, 1),
            },
            options={"axis": (-3, -2), "smooth": 1.0, "squared": True},
            masked=("probs",),
            tag="per channel, smooth, squared",
        ),
    ]


CASES = [
    *(
        Case(
            "losses.softmax_cross_entropy",
            lambda h, w, labels=labels: {
                "logits": real(h, w, 3),
                "labels": labels(h, w),
                "class_weights": fraction(3),
                "where": mask(h, w),
            },
            options={"label_smoothing": 0.1},
            masked=("logits", "labels"),
            tag=tag,
        )
        for tag, labels in [
            ("integer", lambda h, w: classes(h, w, num_classes=3)),
            ("soft", lambda h, w: fraction(h, w, 3)),
        ]
    ),
    Case(
        "losses.pixel_weights",
        lambda h, w: {
            "labels": classes(h, w, num_classes=3),
            "class_weights": fraction(3),
            "where": mask(h, w),
        },
        masked=("labels",),
    ),
    *_overlap_cases("soft_jaccard"),
    *_overlap_cases("soft_dice"),
    *_overlap_cases("jaccard_loss"),
    *_overlap_cases("dice_loss"),
]
