"""Cases of distances, shapes, boundary scores and receptive fields."""

import jax.numpy as jnp
from arguments import Case, fraction, mask, real

CASES = [
    Case(
        "ops.mask_boundary",
        lambda h, w: {"mask": mask(h, w), "where": mask(h, w)},
        {"fraction": 0.3, "side": "outer"},
    ),
    Case("ops.connected_components", lambda h, w: {"mask": mask(h, w)}, {"connectivity": 8}),
    *(
        Case(f"ops.{name}", lambda h, w: {"probs": fraction(h, w)})
        for name in ("soft_erode", "soft_dilate")
    ),
    Case("ops.soft_skeleton", lambda h, w: {"probs": fraction(h, w)}, {"iterations": 2}),
    *(
        Case(
            f"metrics.{name}",
            lambda h, w: {
                "predictions": mask(h, w),
                "targets": mask(h, w),
                "where": mask(h, w),
            },
            options,
        )
        for name, options in [
            ("boundary_iou", {}),
            ("boundary_f_score", {}),
            ("hausdorff_distance", {"percentile": 60.0, "spacing": (0.5, 2.0)}),
            ("normalized_surface_distance", {"tolerance": 1.0}),
            ("average_surface_distance", {}),
        ]
    ),
    Case(
        "analysis.effective_receptive_field",
        lambda h, w: {"images": real(2, h, w, 3)},
        {"apply": lambda images: jnp.tanh(images[..., :2] + images[..., 1:] ** 2)},
    ),
    Case("analysis.field_extent", lambda h, w: {"field": fraction(h, w)}, {"threshold": 0.9}),
]
