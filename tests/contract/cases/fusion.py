"""Cases of `segjax.inference` on queries, and of the models that give them."""

import jax.numpy as jnp
from arguments import Case, counts, fraction, mask, real

THINGS = jnp.array([True, False])


def _queries(h, w):
    return {"class_logits": real(4, 3), "mask_logits": real(4, h, w)}


CASES = [
    Case(
        "inference.panoptic_segmentation",
        lambda h, w: _queries(h, w) | {"where": mask(2 * h, 3 * w)},
        {"score_threshold": 0.4, "overlap_threshold": 0.3},
        build=lambda arrays: arrays | {"things": THINGS, "shape": arrays["where"].shape},
    ),
    Case("inference.semantic_segmentation", _queries, {"shape": (8, 7)}),
    Case("inference.instance_segmentation", _queries, {"shape": (8, 7), "max_instances": 5}),
    Case(
        "inference.object_detection",
        lambda h, w: {"class_logits": real(4, 3), "boxes": fraction(4, 4)},
        {"shape": (8, 7)},
    ),
    Case(
        "models.annealed_mask_probs",
        lambda h, w: {"step": counts(), "starts": counts(h), "ends": counts(h)},
    ),
]
