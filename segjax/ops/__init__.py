"""Geometry on the device: resizing, boxes, ROIAlign, NMS, distances, boundaries, embeddings."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.ops.anchors import pyramid_anchors
    from segjax.ops.boundaries import label_edges, mask_boundary
    from segjax.ops.boxes import box_area, clip_boxes, convert_boxes
    from segjax.ops.coding import decode_boxes, encode_boxes
    from segjax.ops.components import connected_components
    from segjax.ops.deformable import deformable_attention
    from segjax.ops.dense_crf import bilateral_sum, mean_field
    from segjax.ops.distance import distance_transform, signed_distance
    from segjax.ops.interpolation import resize, sample
    from segjax.ops.masks import mask_iou, masks_to_boxes, paste_masks
    from segjax.ops.morphology import soft_dilate, soft_erode, soft_skeleton
    from segjax.ops.overlap import (
        box_iou,
        complete_box_iou,
        distance_box_iou,
        generalized_box_iou,
    )
    from segjax.ops.receptive import (
        ConvSpec,
        ReceptiveField,
        effective_kernel,
        has_gridding,
        min_depth,
        receptive_field,
        seen_pixels,
        skips_objects,
    )
    from segjax.ops.regions import (
        assign_levels,
        crop_masks,
        multilevel_roi_align,
        roi_align,
        roi_pool,
    )
    from segjax.ops.similarity import cosine_similarity, zero_shot_labels
    from segjax.ops.suppression import batched_nms, matrix_nms, nms, soft_nms
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
