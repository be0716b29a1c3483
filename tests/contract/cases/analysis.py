"""Cases of `segjax.analysis`."""

import jax
from arguments import Case, classes, fraction, mask

from segjax import losses


def _closed_form_case(name: str) -> Case:
    return Case(
        f"analysis.{name}",
        lambda h, w: {
            "probs": fraction(h, w, 2),
            "targets": fraction(h, w, 2),
            "where": mask(h, w, 1),
        },
        options={"axis": (-3, -2)},
        masked=("probs", "targets"),
    )


def _problems(h: int, w: int) -> dict:
    return {"probs": fraction(2, h, w), "targets": fraction(2, h, w)}


CASES = [
    _closed_form_case("jaccard_gradient"),
    _closed_form_case("dice_loss_gradient"),
    Case(
        "analysis.mask_problem",
        lambda h, w: {
            "seed": classes(num_classes=9),
            "foreground": fraction(),
            "alignment": fraction(),
            "margin": fraction(),
            "noise": fraction(),
        },
        options={"num_pixels": 12},
        build=lambda arrays: (
            {"key": jax.random.key(arrays["seed"])}
            | {name: array for name, array in arrays.items() if name != "seed"}
        ),
    ),
    Case("analysis.gradient_field", _problems, {"loss": losses.dice_loss}),
    Case("analysis.gradient_norms", _problems, {"loss": losses.jaccard_loss}),
    Case(
        "analysis.hessian_vector_product",
        lambda h, w: {
            "probs": fraction(h, w),
            "targets": fraction(h, w),
            "tangent": fraction(h, w),
        },
        {"loss": losses.dice_loss},
    ),
    Case(
        "analysis.hessian_spectrum",
        lambda h, w: {"probs": fraction(h, w), "targets": mask(h, w)},
        {"loss": losses.jaccard_loss},
    ),
]
