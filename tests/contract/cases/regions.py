"""Cases of `segjax.ops.regions`, and of what gradients by samples are like."""

from arguments import Case, corners, fraction, real

CASES = [
    Case(
        "ops.roi_align",
        lambda h, w: {"features": real(h, w, 2), "boxes": corners(3)},
        {"output_size": (2, 3), "sampling_ratio": None},
        forward=False,
    ),
    Case(
        "ops.roi_pool",
        lambda h, w: {"features": real(h, w, 2), "boxes": corners(3)},
        {"output_size": (2, 3)},
    ),
    Case(
        "ops.multilevel_roi_align",
        lambda h, w: {"fine": real(2 * h, 2 * w, 2), "coarse": real(h, w, 2), "boxes": corners(3)},
        {"output_size": (2, 1), "min_level": 0, "sampling_ratio": 1, "canonical_size": 64.0},
        forward=False,
        build=lambda arrays: {
            "features": [arrays["fine"], arrays["coarse"]],
            "boxes": arrays["boxes"],
        },
    ),
    Case(
        "analysis.bilinear_gradient_ratio",
        lambda h, w: {"alpha": fraction(h, w), "beta": fraction(h, w)},
    ),
    Case("ops.assign_levels", lambda h, w: {"boxes": corners(3)}, {"canonical_size": 8.0}),
]
