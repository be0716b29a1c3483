"""Matching of predictions to targets: assignments, matching costs, anchors and proposals."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.matching.assignment import Assignment, linear_sum_assignment, solve_assignment
    from segjax.matching.costs import (
        class_cost,
        focal_class_cost,
        giou_cost,
        l1_cost,
        mask_cross_entropy_cost,
        mask_dice_cost,
        mask_focal_cost,
    )
    from segjax.matching.greedy import greedy_assignment
    from segjax.matching.proposals import match_proposals, sample_proposals
    from segjax.matching.transport import sinkhorn
    from segjax.matching.verification import verify_assignment
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
