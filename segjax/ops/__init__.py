"""Geometry: interpolation, boxes, boundaries, distances; similarity of embeddings."""

from segjax.ops.anchors import pyramid_anchors
from segjax.ops.boundaries import label_edges
from segjax.ops.boxes import box_area, clip_boxes, convert_boxes
from segjax.ops.coding import decode_boxes, encode_boxes
from segjax.ops.dense_crf import bilateral_sum, mean_field
from segjax.ops.distance import distance_transform, signed_distance
from segjax.ops.interpolation import resize, sample
from segjax.ops.masks import mask_iou, masks_to_boxes, paste_masks
from segjax.ops.overlap import (
    box_iou,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
)
from segjax.ops.regions import assign_levels, multilevel_roi_align, roi_align
from segjax.ops.similarity import cosine_similarity, zero_shot_labels
from segjax.ops.suppression import batched_nms, matrix_nms, nms, soft_nms
