"""What the contract's tests call each array function with. A new function needs a case here.

A case names its function and describes each array argument for an image of `h`×`w` pixels: how
to draw it, and the values at which functions tend to break.
"""

from cases import (
    analysis,
    attention,
    boundary,
    boxes,
    data,
    deformable,
    detection,
    fusion,
    inference,
    instances,
    losses,
    matching,
    metrics,
    numerics,
    ops,
    pixel,
    proposals,
    regions,
    set_prediction,
    shape,
    text,
    weak,
)

CASES = [
    *numerics.CASES,
    *ops.CASES,
    *data.CASES,
    *instances.CASES,
    *losses.CASES,
    *pixel.CASES,
    *regions.CASES,
    *boundary.CASES,
    *weak.CASES,
    *metrics.CASES,
    *inference.CASES,
    *fusion.CASES,
    *analysis.CASES,
    *attention.CASES,
    *shape.CASES,
    *boxes.CASES,
    *deformable.CASES,
    *matching.CASES,
    *set_prediction.CASES,
    *detection.CASES,
    *proposals.CASES,
    *text.CASES,
]
