"""Cases of `segjax.inference` on proposals: 2 levels of anchors, 4 proposals, 3 objects."""

import jax.numpy as jnp
from arguments import Argument, Case, corners, mask, real

from segjax.typing import Instances


def _outputs(*shape):
    """Fewer extremes than usual: they are tried in every combination."""
    return Argument(real(*shape).draw, (1e4, -1e4), (float("nan"), float("inf")))


def _proposals(number):
    return Argument(corners(number).draw, (0, 1e4), (float("nan"), float("inf")))


def _levels(arrays):
    """The first two anchors are a level, and the rest another."""
    return {name: [array[:2], array[2:]] for name, array in arrays.items()}


def _objects(arrays):
    classes = jnp.zeros(3, jnp.int32)
    objects = Instances(arrays["boxes"], classes, arrays["valid"])
    return {"objects": objects, "mask_logits": arrays["mask_logits"]}


CASES = [
    Case(
        "inference.rpn_proposals",
        lambda h, w: {"logits": _outputs(5), "deltas": _outputs(5, 4), "anchors": _proposals(5)},
        {"shape": (8, 7), "most_of_level": 2, "max_proposals": 3},
        build=_levels,
    ),
    Case(
        "inference.detect_objects",
        lambda h, w: {
            "class_logits": _outputs(4, 3),
            "deltas": _outputs(4, 3, 4),
            "proposals": _proposals(4),
            "where": mask(4),
        },
        {"shape": (8, 7), "max_detections": 5},
        masked=("class_logits", "deltas", "proposals"),
    ),
    Case(
        "inference.paste_objects",
        lambda h, w: {"boxes": _proposals(3), "mask_logits": real(3, h, w), "valid": mask(3)},
        {"shape": (8, 7)},
        build=_objects,
    ),
]
