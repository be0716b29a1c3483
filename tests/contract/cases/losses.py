"""Cases of `segjax.losses`."""

import dataclasses
from collections.abc import Callable

from arguments import Case, classes, fraction, mask, real


def _overlap_cases(name: str, **options) -> list[Case]:
    """A soft overlap of masks: one mask in all, and one for each channel."""
    return [
        Case(
            f"losses.{name}",
            lambda h, w: {
                "probs": fraction(h, w, 2),
                "targets": fraction(h, w, 2),
                "where": mask(h, w, 2),
            },
            masked=("probs", "targets"),
        ),
        Case(
            f"losses.{name}",
            lambda h, w: {
                "probs": fraction(h, w, 2),
                "targets": mask(h, w, 2),
                "where": mask(h, w, 1),
            },
            options={"axis": (-3, -2), "smooth": 1.0, **options},
            masked=("probs",),
            tag=" ".join(["per channel, smooth", *options]),
        ),
    ]


def _generalized_dice_case(weighting: str, targets: Callable, **options) -> Case:
    return Case(
        "losses.generalized_dice_loss",
        lambda h, w: {
            "probs": fraction(h, w, 3),
            "targets": targets(h, w, 3),
            "where": mask(h, w, 1),
        },
        options={"axis": (-3, -2), "weighting": weighting, **options},
        masked=("probs",),
        tag=" ".join([weighting, *options]),
    )


CASES = [
    *_overlap_cases("soft_jaccard", squared=True),
    *_overlap_cases("soft_dice", squared=True),
    *_overlap_cases("jaccard_loss", squared=True),
    *_overlap_cases("dice_loss", squared=True),
    *_overlap_cases("log_cosh_dice_loss", squared=True),
    *_overlap_cases("tversky_loss", alpha=0.2, beta=0.6),
    *_overlap_cases("focal_tversky_loss", gamma=2.0),
    _generalized_dice_case("square", fraction),
    _generalized_dice_case("simple", mask, smooth=1.0),
    _generalized_dice_case("uniform", mask),
    Case(
        "losses.pixel_text_cross_entropy",
        lambda h, w: {
            "features": real(h, w, 4),
            "text": real(3, 4),
            "labels": classes(h, w, num_classes=3),
            "temperature": dataclasses.replace(fraction(), extremes=(0.01, 100)),
            "where": mask(h, w),
        },
        masked=("features", "labels"),
        labels=("labels",),
    ),
]
