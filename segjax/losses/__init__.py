"""Losses: results per pixel or per mask; the caller reduces."""

from segjax.losses.pixel import pixel_weights, softmax_cross_entropy
from segjax.losses.region import dice_loss, jaccard_loss, soft_dice, soft_jaccard
