"""Loss functions for segmentation; they return one value per pixel or mask, or named averages."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.losses import weak
    from segjax.losses.boundary import (
        active_boundary_loss,
        balanced_edge_cross_entropy,
        boundary_loss,
        edge_weighted_cross_entropy,
        hausdorff_loss,
    )
    from segjax.losses.centerline import cldice_loss
    from segjax.losses.contrastive import pixel_text_cross_entropy
    from segjax.losses.detection import box_head_loss, mask_head_loss, rpn_loss
    from segjax.losses.focal import (
        hard_pixels,
        poly_cross_entropy,
        sigmoid_focal_loss,
        softmax_focal_loss,
        symmetric_cross_entropy,
    )
    from segjax.losses.fused import (
        cross_entropy_and_dice,
        resized_cross_entropy,
        resized_cross_entropy_and_dice,
    )
    from segjax.losses.lovasz import lovasz_hinge_loss, lovasz_softmax_loss
    from segjax.losses.multi_task import fixed_weighting, uncertainty_weighting
    from segjax.losses.pixel import pixel_weights, sigmoid_cross_entropy, softmax_cross_entropy
    from segjax.losses.point_sampling import sample_masks, uncertain_points
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
    from segjax.losses.set_prediction import (
        detr_loss,
        mask2former_loss,
        maskformer_loss,
        match_queries,
    )
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
