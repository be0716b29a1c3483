"""Losses from little: points, scribbles, tags, boxes, and what makes their predictions smooth."""

from segjax.losses.weak.mil import (
    log_sum_exp_pooling,
    log_sum_likelihood,
    max_log_likelihood,
    mean_log_likelihood,
    noisy_or_log_likelihood,
    point_mil_loss,
)
from segjax.losses.weak.partial import partial_cross_entropy, tag_loss
