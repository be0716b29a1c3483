"""Cases of `segjax.losses.weak`, and of the CRF in `segjax.ops` that it shares."""

import dataclasses

import numpy as np
from arguments import Argument, Case, classes, corners, fraction, log_prob, mask, real

_POINTS = Argument(lambda rng: rng.uniform(0, 5, (2, 2)), (0, 1, 1e4, -1e4), (np.nan, np.inf))


def _usual(argument: Argument) -> Argument:
    """Without extremes, which the other arguments have enough of."""
    return dataclasses.replace(argument, extremes=())


def _crf(h: int, w: int) -> dict[str, Argument]:
    return {
        "logits": real(h, w, 2),
        "image": fraction(h, w, 3),
        "spatial_weight": _usual(fraction()),
        "bilateral_weight": _usual(fraction()),
    }


CASES = [
    *(
        Case(
            f"losses.weak.{name}",
            lambda h, w: {"log_probs": log_prob(h, w), "where": mask(h, w)},
            masked=("log_probs",),
        )
        for name in (
            "noisy_or_log_likelihood",
            "log_sum_likelihood",
            "max_log_likelihood",
            "mean_log_likelihood",
        )
    ),
    Case(
        "losses.weak.log_sum_exp_pooling",
        lambda h, w: {"scores": real(h, w), "where": mask(h, 1)},
        {"axis": 0},
    ),
    Case(
        "losses.weak.point_mil_loss",
        lambda h, w: {
            "logits": real(h, w, 3),
            "points": _POINTS,
            "labels": classes(2, num_classes=3),
            "where": mask(2),
            "valid_pixels": mask(h, w),
        },
        {"radius": 1.5},
        masked=("points", "labels"),
        labels=("labels",),
    ),
    Case(
        "losses.weak.partial_cross_entropy",
        lambda h, w: {
            "logits": real(h, w, 3),
            "labels": classes(h, w, num_classes=3),
            "where": mask(h, w),
        },
        masked=("logits", "labels"),
        labels=("labels",),
    ),
    *(
        Case(
            "losses.weak.tag_loss",
            lambda h, w: {"logits": real(h, w, 3), "tags": mask(3), "where": mask(h, w)},
            {"pooling": pooling},
            masked=("logits",),
            tag=pooling,
        )
        for pooling in ("max", "noisy_or")
    ),
    Case(
        "losses.weak.box_projection_loss",
        lambda h, w: {"probs": fraction(2, h, w), "boxes": corners(2), "where": mask(2, h, w)},
        masked=("probs",),
    ),
    Case(
        "losses.weak.pairwise_affinity_loss",
        lambda h, w: {
            "logits": real(2, h, w),
            "image": fraction(h, w, 3),
            "boxes": corners(2),
            "where": mask(2, h, w),
        },
        {"dilation": 1, "threshold": 0.0},
        masked=("logits",),
    ),
    *(
        Case(
            "losses.weak.total_variation",
            lambda h, w: {"probs": fraction(h, w, 2), "where": mask(h, w)},
            {"isotropic": isotropic},
            masked=("probs",),
            tag="isotropic" if isotropic else "",
        )
        for isotropic in (False, True)
    ),
    *(
        Case(
            f"losses.weak.{name}",
            lambda h, w: {
                "probs": fraction(h, w, 2),
                "image": fraction(h, w, 3),
                "where": mask(h, w),
            },
            {"spatial_sigma": 2.0, "color_sigma": 0.5, **options},
            masked=("probs", "image"),
            side=side,
        )
        for name, options, side in [
            ("gated_crf_loss", {"window": 1}, 1024),
            ("dense_crf_loss", {}, 64),
        ]
    ),
    Case(
        "ops.bilateral_sum",
        lambda h, w: {"values": real(h, w, 2), "image": real(h, w, 3)},
        {"spatial_sigma": 2.0, "color_sigma": 0.5},
    ),
    Case(
        "ops.mean_field",
        lambda h, w: _crf(h, w) | {"where": mask(h, w)},
        {"iterations": 2, "spatial_sigma": 1.0, "bilateral_sigma": (2.0, 0.5), "window": 1},
        masked=("logits", "image"),
        tag="window",
    ),
    Case(
        "ops.mean_field",
        lambda h, w: _crf(h, w) | {"compatibility": _usual(real(2, 2))},
        {
            "iterations": 2,
            "spatial_sigma": 1.0,
            "bilateral_sigma": (2.0, 0.5),
            "normalization": "none",
        },
        tag="learned compatibility",
    ),
]
