"""Cases of the losses of borders, of centre lines, and of several tasks."""

import dataclasses

from arguments import Case, classes, fraction, mask, real

CASES = [
    Case(
        "losses.boundary_loss",
        lambda h, w: {"probs": fraction(h, w), "distance": real(h, w), "where": mask(h, w)},
        masked=("probs", "distance"),
    ),
    *(
        Case(
            "losses.hausdorff_loss",
            lambda h, w, targets=targets: {
                "probs": fraction(h, w),
                "targets": targets(h, w),
                "where": mask(h, w),
            },
            {"alpha": alpha},
            masked=("probs", "targets"),
            tag=tag,
        )
        for tag, alpha, targets in [
            ("soft", 2.0, fraction),
            (
                "hard",
                0.5,
                lambda h, w: dataclasses.replace(mask(h, w), junk=(False, True)),
            ),
        ]
    ),
    Case(
        "losses.balanced_edge_cross_entropy",
        lambda h, w: {"logits": real(h, w), "edges": fraction(h, w), "where": mask(h, w)},
        masked=("logits", "edges"),
    ),
    Case(
        "losses.edge_weighted_cross_entropy",
        lambda h, w: {
            "logits": real(h, w, 3),
            "labels": classes(h, w, num_classes=3),
            "where": mask(h, w),
        },
        masked=("logits", "labels"),
        labels=("labels",),
    ),
    # Neighbours that are constants to the gradient make it another than finite differences show.
    Case(
        "losses.active_boundary_loss",
        lambda h, w: {
            "logits": real(h, w, 3),
            "labels": classes(h, w, num_classes=3),
            "where": mask(h, w),
        },
        {"boundary_fraction": 0.5, "detach_neighbors": False},
        masked=("logits", "labels"),
        labels=("labels",),
    ),
    *(
        Case(
            "losses.cldice_loss",
            lambda h, w: {
                "probs": fraction(h, w),
                "targets": fraction(h, w),
                "where": mask(h, w),
            },
            {"iterations": 1, "smooth": smooth},
            masked=("probs", "targets"),
            tag=f"smooth {smooth}",
            side=side,
        )
        for smooth, side in [(0.0, 1024), (1.0, 64)]
    ),
    *(
        Case(
            f"losses.{name}",
            lambda h, w: {"first": fraction(), "second": fraction(), "weight": fraction()},
            build=lambda arrays, factors=factors: {
                "losses": {"region": arrays["first"], "edges": arrays["second"]},
                factors: {"region": arrays["weight"], "edges": arrays["weight"] / 2},
            },
        )
        for name, factors in [
            ("fixed_weighting", "weights"),
            ("uncertainty_weighting", "log_variances"),
        ]
    ),
]
