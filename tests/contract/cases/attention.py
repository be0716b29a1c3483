"""Cases of attention as a signal."""

import jax
from arguments import Case, classes, fraction, mask, real

CASES = [
    Case(
        "analysis.class_token_maps",
        lambda h, w: {"attention": fraction(2, 8, 8)},
        {"shape": (3, 6), "patch_size": 2, "prefix_tokens": 2},
    ),
    Case(
        "analysis.class_query_maps",
        lambda h, w: {"attention": fraction(2, 8, 8)},
        {"shape": (5, 4), "patch_size": 2},
    ),
    Case(
        "analysis.attention_rollout",
        lambda h, w: {"first": fraction(2, 3, 3), "last": fraction(2, 3, 3)},
        build=lambda arrays: {"attention": [arrays["first"], arrays["last"]]},
    ),
    Case(
        "analysis.attention_error_correlation",
        lambda h, w: {
            "seed": classes(num_classes=9),
            "attention": fraction(h, w),
            "error": real(h, w),
            "where": mask(h, w),
        },
        {"permutations": 9},
        masked=("attention", "error"),
        build=lambda arrays: (
            {"key": jax.random.key(arrays["seed"])}
            | {name: array for name, array in arrays.items() if name != "seed"}
        ),
    ),
]
