"""Metrics: sums over devices and batches first, scores last."""

from segjax.metrics.confusion import (
    class_dice,
    class_iou,
    confusion_matrix,
    dice_score,
    frequency_weighted_iou,
    mean_iou,
    pixel_accuracy,
)
