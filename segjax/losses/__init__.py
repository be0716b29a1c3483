"""Losses: results per pixel or per mask; the caller reduces."""

from segjax.losses.contrastive import pixel_text_cross_entropy
from segjax.losses.pixel import pixel_weights, softmax_cross_entropy
from segjax.losses.region import (
    dice_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    jaccard_loss,
    log_cosh_dice_loss,
    soft_dice,
    soft_jaccard,
    tversky_loss,
)
