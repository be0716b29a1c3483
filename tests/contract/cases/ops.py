"""Cases of `segjax.ops`."""

from arguments import Case, classes, corners, mask, real

CASES = [
    *(
        Case(
            "ops.resize",
            lambda h, w: {"image": real(h, w, 2)},
            {"shape": (7, 3), "method": method, **options},
            tag=" ".join([method, *options]),
        )
        for method, options in [
            ("nearest", {}),
            ("bilinear", {}),
            ("bilinear", {"align_corners": True}),
            ("bicubic", {}),
            ("bicubic", {"antialias": True}),
            ("area", {}),
        ]
    ),
    *(
        Case(
            "ops.sample",
            lambda h, w: {"features": real(h, w, 2), "points": real(3, 2)},
            {"method": method, "padding": padding},
            tag=f"{method} {padding}",
        )
        for method, padding in [
            ("nearest", "zeros"),
            ("bilinear", "zeros"),
            ("bicubic", "border"),
            ("bilinear", "reflection"),
        ]
    ),
    Case("ops.box_area", lambda h, w: {"boxes": corners(3)}),
    Case("ops.clip_boxes", lambda h, w: {"boxes": corners(3)}, {"shape": (4, 5)}),
    Case("ops.masks_to_boxes", lambda h, w: {"masks": mask(3, h, w)}),
    Case(
        "ops.label_edges",
        lambda h, w: {"labels": classes(h, w, num_classes=3), "where": mask(h, w)},
        masked=("labels",),
    ),
    *(
        Case(f"ops.{name}", lambda h, w: {"features": real(h, w, 4), "text": real(3, 4)})
        for name in ("cosine_similarity", "zero_shot_labels")
    ),
    Case("ops.distance_transform", lambda h, w: {"mask": mask(h, w)}, {"spacing": (0.5, 2.0)}),
    Case("ops.signed_distance", lambda h, w: {"mask": mask(h, w), "where": mask(h, w)}),
]
