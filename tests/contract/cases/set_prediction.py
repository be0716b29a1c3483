"""Cases of the losses of set prediction: 3 queries of 2 classes, and up to 2 objects."""

import jax
import jax.numpy as jnp
import numpy as np
from arguments import Argument, Case, classes, counts, fraction, mask, real

from segjax.typing import Instances


def _corners(*shape):
    """Boxes in the image, which padding may hold anything instead of."""

    def draw(rng):
        start, sides = rng.uniform(0, 2, (2, *shape, 2))
        return np.concatenate([start, start + sides], axis=-1)

    return Argument(draw, (0,), (np.nan, np.inf))


def _logits(*shape):
    """Fewer extremes than usual: they are tried in every combination."""
    return Argument(real(*shape).draw, (0, 1e4, -1e4))


def _targets(arrays, **options):
    targets = Instances(
        boxes=arrays.pop("true_boxes", jnp.zeros((2, 4))),
        classes=arrays.pop("classes", jnp.zeros(2, jnp.int32)),
        valid=arrays.pop("where"),
        masks=arrays.pop("masks", None),
    )
    return {**arrays, "targets": targets, **options}


def _boxes(h, w):
    return {
        "class_logits": _logits(3, 3),
        "boxes": fraction(3, 4),
        "true_boxes": _corners(2),
        "classes": classes(2, num_classes=2),
        "where": mask(2),
    }


def _masks(h, w):
    return {
        "class_logits": _logits(3, 3),
        "mask_logits": _logits(3, h, w),
        "masks": mask(2, h, w),
        "where": mask(2),
    }


def _keyed(arrays):
    key = jax.random.key(arrays.pop("seed"))
    return {"key": key, **_targets(arrays)}


CASES = [
    Case(
        "losses.match_queries",
        lambda h, w: {"cost": real(h, w), "valid": mask(w)},
    ),
    Case("losses.sample_masks", lambda h, w: {"masks": real(2, h, w), "points": fraction(3, 2)}),
    Case(
        "losses.uncertain_points",
        lambda h, w: {"logits": real(2, h * w)},
        {"count": 1},
    ),
    Case(
        "losses.detr_loss",
        _boxes,
        masked=("true_boxes", "classes"),
        labels=("classes",),
        build=lambda arrays: _targets(dict(arrays), shape=(4, 5)),
        side=8,
    ),
    Case("losses.maskformer_loss", _masks, build=lambda arrays: _targets(dict(arrays)), side=8),
    Case(
        "losses.mask2former_loss",
        lambda h, w: {**_masks(h, w), "seed": Argument(counts().draw)},
        {"points": 4},
        build=lambda arrays: _keyed(dict(arrays)),
        side=8,
    ),
]
