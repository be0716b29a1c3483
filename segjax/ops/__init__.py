"""Geometry: interpolation, boxes, boundaries, distances; similarity of embeddings."""

from segjax.ops.boundaries import label_edges
from segjax.ops.boxes import box_area, clip_boxes, masks_to_boxes
from segjax.ops.dense_crf import bilateral_sum, mean_field
from segjax.ops.distance import distance_transform, signed_distance
from segjax.ops.interpolation import resize, sample
from segjax.ops.similarity import cosine_similarity, zero_shot_labels
