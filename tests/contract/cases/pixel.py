"""Cases of the losses of pixels: `pixel`, `focal`, `lovasz` and `fused`."""

from arguments import Case, classes, fraction, mask, real


def _labelled(h: int, w: int) -> dict:
    return {
        "logits": real(h, w, 3),
        "labels": classes(h, w, num_classes=3),
        "where": mask(h, w),
    }


def _binary(h: int, w: int) -> dict:
    return {"logits": real(h, w), "targets": fraction(h, w), "where": mask(h, w)}


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
            labels=("labels",) if tag == "integer" else (),
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
        labels=("labels",),
    ),
    Case(
        "losses.sigmoid_cross_entropy",
        lambda h, w: _binary(h, w) | {"pos_weight": fraction()},
        options={"label_smoothing": 0.1},
        masked=("logits", "targets"),
    ),
    *(
        Case(
            "losses.sigmoid_focal_loss",
            _binary,
            options={"alpha": alpha, "gamma": gamma},
            masked=("logits", "targets"),
            tag=f"{alpha} {gamma}",
        )
        for alpha, gamma in [(None, 2.0), (0.25, 0.5)]
    ),
    *(
        Case(
            "losses.softmax_focal_loss",
            lambda h, w: _labelled(h, w) | {"class_weights": fraction(3)},
            options={"gamma": gamma},
            masked=("logits", "labels"),
            labels=("labels",),
            tag=f"{gamma}",
        )
        for gamma in (2.0, 0.5)
    ),
    *(
        Case(f"losses.{name}", _labelled, masked=("logits", "labels"), labels=("labels",))
        for name in ("poly_cross_entropy", "symmetric_cross_entropy")
    ),
    Case(
        "losses.hard_pixels",
        lambda h, w: {"losses": real(h, w), "where": mask(h, w)},
        options={"count": 3, "threshold": 0.5},
        masked=("losses",),
    ),
    *(
        Case(
            "losses.lovasz_softmax_loss",
            lambda h, w: {
                "probs": fraction(h, w, 3),
                "labels": classes(h, w, num_classes=3),
                "where": mask(h, w),
            },
            options=options,
            masked=("probs", "labels"),
            labels=("labels",),
            tag=" ".join(options),
            side=side,
        )
        for options, side in [({}, 1024), ({"classes": "all"}, 64), ({"bins": 64}, 1024)]
    ),
    Case(
        "losses.lovasz_hinge_loss",
        lambda h, w: {"logits": real(h, w), "targets": mask(h, w), "where": mask(h, w)},
        masked=("logits",),
    ),
    *(
        Case(
            "losses.cross_entropy_and_dice",
            _labelled,
            options={"smooth": 1.0, "block": block},
            masked=("logits", "labels"),
            labels=("labels",),
            tag=f"block {block}",
            forward=False,
            side=side,
        )
        for block, side in [(None, 1024), (4, 64)]
    ),
    *(
        Case(
            f"losses.{name}",
            lambda h, w: _labelled(h, w) | {"logits": real(2, 3, 3)},
            options={"block": 10, "align_corners": align_corners},
            masked=("labels",),
            labels=("labels",),
            tag=f"align_corners {align_corners}",
            forward=False,
        )
        for name, align_corners in [
            ("resized_cross_entropy", False),
            ("resized_cross_entropy_and_dice", True),
        ]
    ),
]
