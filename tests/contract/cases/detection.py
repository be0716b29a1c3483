"""Cases of detection by proposals: 3 of them, 2 classes and up to 2 objects.

Boxes are whole numbers, so that no gradient by them is asked for: they are constants.
"""

import jax
import jax.numpy as jnp
import numpy as np
from arguments import Argument, Case, classes, counts, mask, real

from segjax.typing import Instances


def _boxes(*shape, extremes=(0,)):
    """Few places, so that some overlap; without area where all coordinates are the same."""

    def draw(rng):
        start, sides = rng.integers(0, 2, (*shape, 2)), rng.integers(1, 4, (*shape, 2))
        return np.concatenate([start, start + sides], axis=-1).astype(np.int32)

    return Argument(draw, extremes, (-7, 10_000))


def _matches(*shape):
    return Argument(lambda rng: rng.integers(-2, 2, shape, dtype=np.int32), (-2, 0), (9, -9))


def _outputs(*shape):
    """Fewer extremes than usual: they are tried in every combination."""
    return Argument(real(*shape).draw, (1e4, -1e4), (np.nan, np.inf))


def _records(arrays):
    """Boxes as floats, and what belongs to the objects in a record."""
    arrays = dict(arrays)
    for name in {"anchors", "proposals"} & arrays.keys():
        arrays[name] = arrays[name].astype(jnp.float32)
    targets = Instances(
        boxes=arrays.pop("true_boxes", jnp.zeros((2, 4))).astype(jnp.float32),
        classes=arrays.pop("classes", jnp.zeros(2, jnp.int32)),
        valid=arrays.pop("valid", jnp.ones(2, bool)),
        masks=arrays.pop("masks", None),
        crowd=arrays.pop("crowd", None),
    )
    return {**arrays, "targets": targets}


CASES = [
    Case(
        "matching.match_proposals",
        lambda h, w: {
            "proposals": _boxes(3, extremes=(0, 10_000)),
            "true_boxes": _boxes(2, extremes=(0, 10_000)),
            "valid": mask(2),
            "crowd": mask(2),
            "where": mask(3),
        },
        {"high": 0.7, "low": 0.3, "allow_low_quality": True},
        masked=("proposals",),
        build=_records,
    ),
    Case(
        "matching.sample_proposals",
        lambda h, w: {"seed": counts(), "matches": _matches(5)},
        {"count": 3, "positive_fraction": 0.5},
        build=lambda arrays: {
            "key": jax.random.key(arrays["seed"]),
            "matches": arrays["matches"],
        },
    ),
    Case(
        "losses.rpn_loss",
        lambda h, w: {
            "logits": _outputs(3),
            "deltas": _outputs(3, 4),
            "anchors": _boxes(3, extremes=(0, 10_000)),
            "matches": _matches(3),
            "true_boxes": _boxes(2),
            "where": mask(3),
        },
        masked=("logits", "deltas", "anchors", "matches"),
        build=_records,
        side=8,
    ),
    Case(
        "losses.box_head_loss",
        lambda h, w: {
            "class_logits": _outputs(6, 3),
            "deltas": _outputs(6, 3, 4),
            "proposals": _boxes(6),
            "matches": _matches(6),
            "true_boxes": _boxes(2),
            "classes": classes(2, num_classes=2),
            "where": mask(6),
        },
        masked=("class_logits", "deltas", "proposals", "matches"),
        build=_records,
        side=8,
    ),
    Case(
        "losses.mask_head_loss",
        lambda h, w: {
            "mask_logits": _outputs(3, 2, 2, 3),
            "proposals": _boxes(3),
            "matches": _matches(3),
            "masks": mask(2, h, w),
            "classes": classes(2, num_classes=2),
            "where": mask(3),
            "pixels": mask(h, w),
        },
        masked=("mask_logits", "proposals", "matches"),
        build=_records,
        side=8,
    ),
    Case(
        "ops.crop_masks",
        lambda h, w: {
            "masks": mask(2, h, w),
            "boxes": _boxes(3),
            "mask_of": classes(3, num_classes=2),
        },
        {"output_size": (2, 2)},
        build=lambda arrays: {**arrays, "boxes": arrays["boxes"].astype(jnp.float32)},
        side=8,
    ),
]
