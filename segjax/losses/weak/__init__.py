"""Losses of weak supervision: points, scribbles, image tags, boxes, and regularizers."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.losses.weak.box import box_projection_loss, pairwise_affinity_loss
    from segjax.losses.weak.mil import (
        log_sum_exp_pooling,
        log_sum_likelihood,
        max_log_likelihood,
        mean_log_likelihood,
        noisy_or_log_likelihood,
        point_mil_loss,
    )
    from segjax.losses.weak.partial import partial_cross_entropy, tag_loss
    from segjax.losses.weak.regularizers import dense_crf_loss, gated_crf_loss, total_variation
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
