"""Inference: from model outputs to predictions of labels, objects and segments."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.inference.detection import detect_objects, paste_objects, rpn_proposals
    from segjax.inference.panoptic import panoptic_segmentation
    from segjax.inference.predictions import (
        InstancePrediction,
        PanopticPrediction,
        SemanticPrediction,
    )
    from segjax.inference.predictor import Predictor
    from segjax.inference.queries import (
        instance_segmentation,
        object_detection,
        semantic_segmentation,
    )
    from segjax.inference.semantic import semantic_labels, semantic_probs
    from segjax.inference.text_labels import drop_absent_classes, smooth_by_keys
    from segjax.inference.views import average_over_views
    from segjax.inference.windows import sliding_window
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
