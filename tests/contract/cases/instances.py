"""Cases of segments, objects and what moves them between images."""

from typing import Any

import jax
import numpy as np
from arguments import Case, classes, mask, real

from segjax.typing import Instances, Panoptic, Record

_KEYS = jax.random.split(jax.random.key(0))


def _partition(arrays: dict[str, jax.Array]) -> Panoptic:
    return Panoptic(arrays["segments"] - 1, arrays["classes"], arrays["valid"])


def _batch(arrays: dict[str, jax.Array]) -> dict[str, Any]:
    """Two images that both have objects and free rows."""
    masks = arrays["masks"]
    boxes, zeros = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.int32)
    valid = np.array([[True, False, True, False]] * 2)
    return {
        "batch": Record(
            image=arrays["image"], instances=Instances(boxes, zeros, valid, masks=masks)
        )
    }


CASES = [
    Case(
        "data.panoptic_to_instances",
        lambda h, w: {
            "segments": classes(h, w, num_classes=4),
            "classes": classes(3, num_classes=2),
            "valid": mask(3),
        },
        {"things": (False, True), "max_instances": 2},
        build=lambda arrays: {"panoptic": _partition(arrays)},
    ),
    Case(
        "data.copy_paste",
        lambda h, w: {"image": real(2, h, w, 2), "masks": mask(2, 4, h, w)},
        {"keys": _KEYS},
        build=_batch,
    ),
]
