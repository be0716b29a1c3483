"""Time of Mask2Former's loss, matching included, value and gradient, beside transformers'.

    pip install -e ".[parity]" && python experiments/benchmarks/set_prediction.py

100 queries and up to 50 objects an image; ours is compiled and padded to 50 throughout, theirs gets
no padding and solves the matching by SciPy. The points are random, so that values agree roughly.
Takes about a minute on two cores.
"""

from collections.abc import Callable

import numpy as np
from harness import main

BATCH, QUERIES, OBJECTS, SIZE, CLASSES = 8, 100, 50, 160, 133
POINTS = 12544

TABLE = {"Mask2Former's loss, 8 images": ["segjax", "transformers"]}


def inputs() -> dict[str, np.ndarray]:
    """Logits, and true masks: ellipses, of which every image has another number."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    centre = rng.uniform(0, SIZE, (2, BATCH, OBJECTS, 1, 1))
    radius = rng.uniform(5, 60, (2, BATCH, OBJECTS, 1, 1))
    distance = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2
    return {
        "class_logits": rng.standard_normal((BATCH, QUERIES, CLASSES + 1), np.float32),
        "mask_logits": rng.standard_normal((BATCH, QUERIES, SIZE, SIZE), np.float32),
        "masks": distance < 1,
        "classes": rng.integers(CLASSES, size=(BATCH, OBJECTS)),
        "counts": rng.integers(1, OBJECTS + 1, BATCH),
    }


def our_run() -> Callable[[], float]:
    import jax
    import jax.numpy as jnp

    from segjax.losses import mask2former_loss
    from segjax.typing import Instances

    arrays = inputs()
    targets = Instances(
        boxes=jnp.zeros((BATCH, OBJECTS, 4)),
        classes=jnp.asarray(arrays["classes"], jnp.int32),
        valid=jnp.arange(OBJECTS) < arrays["counts"][:, None],
        masks=jnp.asarray(arrays["masks"]),
    )
    logits = jax.device_put((arrays["class_logits"], arrays["mask_logits"]))
    keys = jax.random.split(jax.random.key(0), BATCH)

    def objective(logits, targets, keys):
        terms = mask2former_loss(keys, *logits, targets, points=POINTS)
        return sum(term.value for term in terms.values())

    step = jax.jit(jax.value_and_grad(objective)).lower(logits, targets, keys).compile()

    def run():
        return float(jax.block_until_ready(step(logits, targets, keys))[0])

    return run


def their_run() -> Callable[[], float]:
    import torch
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    arrays = inputs()
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    config = Mask2FormerConfig(num_labels=CLASSES, train_num_points=POINTS)
    criterion = Mask2FormerLoss(config, weights)
    masks, classes = (
        [torch.tensor(array[:n]) for array, n in zip(arrays[name], arrays["counts"], strict=True)]
        for name in ("masks", "classes")
    )
    masks = [mask.float() for mask in masks]
    class_logits, mask_logits = (
        torch.tensor(arrays[name], requires_grad=True) for name in ("class_logits", "mask_logits")
    )

    def run():
        class_logits.grad = mask_logits.grad = None
        losses = criterion(mask_logits, class_logits, masks, classes)
        value = sum(weights[name] * loss for name, loss in losses.items())
        value.backward()
        return value.item()

    return run


def make_run(task: str, form: str) -> Callable[[], float]:
    return our_run() if form == "segjax" else their_run()


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
