"""Cases of `segjax.matching`."""

from arguments import Case, classes, corners, counts, fraction, mask, real

from segjax.matching import solve_assignment


def _matrix(h, w):
    return {"cost": real(h, w), "where": mask(h, w)}


def _integers(h, w):
    """No dual variable of integers is differentiable; that of floats is constant to `jax.grad`."""
    return {"cost": counts(h, w), "where": mask(h, w)}


def _classes(h, w):
    return {"logits": real(h, 3), "classes": classes(w, num_classes=3)}


def _boxes(h, w):
    return {"boxes": corners(h), "targets": corners(w)}


def _masks(h, w):
    return {"logits": real(h, 6), "targets": fraction(w, 6), "where": mask(6)}


CASES = [
    Case("matching.linear_sum_assignment", _matrix, masked=("cost",)),
    Case("matching.solve_assignment", _integers),
    Case(
        "matching.verify_assignment",
        _integers,
        build=lambda arrays: {**arrays, "assignment": solve_assignment(**arrays)},
    ),
    Case("matching.greedy_assignment", _matrix, masked=("cost",)),
    Case("matching.sinkhorn", _matrix, {"temperature": 0.5, "iterations": 4}, masked=("cost",)),
    Case("matching.class_cost", _classes),
    Case("matching.focal_class_cost", _classes),
    Case("matching.l1_cost", _boxes),
    Case("matching.giou_cost", _boxes),
    Case("matching.mask_cross_entropy_cost", _masks),
    Case("matching.mask_focal_cost", _masks),
    Case("matching.mask_dice_cost", _masks),
]
