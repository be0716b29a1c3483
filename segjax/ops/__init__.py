"""Geometry: interpolation, boxes, boundaries."""

from segjax.ops.boundaries import label_edges
from segjax.ops.boxes import box_area, clip_boxes, masks_to_boxes
from segjax.ops.interpolation import resize, sample
