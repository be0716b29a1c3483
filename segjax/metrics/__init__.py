"""Metrics as pytrees: `update`, `merge` and `all_reduce` add up; `compute` gives the scores."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.metrics.boundary import (
        BoundaryScores,
        LabelBoundaries,
        boundary_f_score,
        boundary_iou,
        label_boundaries,
    )
    from segjax.metrics.calibration import (
        Calibration,
        CalibrationScores,
        expected_calibration_error,
    )
    from segjax.metrics.confusion import (
        ConfusionMatrix,
        SegmentationScores,
        class_dice,
        class_iou,
        confusion_matrix,
        dice_score,
        frequency_weighted_iou,
        mean_iou,
        pixel_accuracy,
    )
    from segjax.metrics.detection import AveragePrecision, DetectionScores, average_precision
    from segjax.metrics.panoptic import PanopticQuality, PanopticScores, panoptic_quality
    from segjax.metrics.surface import (
        average_surface_distance,
        hausdorff_distance,
        normalized_surface_distance,
    )
    from segjax.metrics.voc import VocAveragePrecision, VocScores, voc_average_precision
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
