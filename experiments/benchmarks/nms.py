"""Time of non-maximum suppression, beside torchvision's on the CPU.

    pip install -e ".[parity]" && python experiments/benchmarks/nms.py

A run is ten calls. The boxes are proposals: on an image of 1333 × 800, ten around each object, an
eighth of its side apart; or nothing but objects, of which few overlap. The number on which the
forms agree is how many boxes are kept. Takes about a minute.
"""

from collections.abc import Callable

import numpy as np
from harness import main

CALLS, THRESHOLD, CLASSES = 10, 0.5, 20
# Of each task: images in a batch, boxes in an image, boxes around an object, whether by class.
TASKS = {
    "1,000 boxes": (1, 1000, 10, False),
    "4,000 boxes": (1, 4000, 10, False),
    "8,000 boxes": (1, 8000, 10, False),
    "8 images of 1,000 boxes": (8, 1000, 10, False),
    "8 images of 2,000 boxes": (8, 2000, 10, False),
    "8,000 boxes that hardly overlap": (1, 8000, 1, False),
    "8,000 boxes of 20 classes": (1, 8000, 10, True),
}


def inputs(task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes `[b, n, 4]`, scores `[b, n]` and classes `[b, n]`."""
    batch, number, crowd, _ = TASKS[task]
    rng = np.random.default_rng(0)

    def of_objects(low, high):
        values = rng.uniform(low, high, (batch, number // crowd, 2))
        return np.repeat(values, crowd, axis=1)

    sides = np.exp(of_objects(np.log(16), np.log(256)))
    centres = of_objects((0, 0), (1333, 800)) + rng.normal(0, 1 / 8, sides.shape) * sides
    sides = sides * np.exp(rng.normal(0, 1 / 8, sides.shape))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
    scores = rng.random((batch, number))
    return np.float32(boxes), np.float32(scores), rng.integers(CLASSES, size=(batch, number))


def ours(by_class: bool, *arrays: np.ndarray) -> Callable:
    import jax
    import jax.numpy as jnp

    from segjax import ops

    @jax.jit
    @jax.vmap
    def keep(boxes, scores, classes):
        if by_class:
            return ops.batched_nms(boxes, scores, classes, iou_threshold=THRESHOLD)
        return ops.nms(boxes, scores, iou_threshold=THRESHOLD)

    arrays = tuple(map(jnp.asarray, arrays))
    return lambda: np.asarray(keep(*arrays)).sum()


def torchvisions(by_class: bool, *arrays: np.ndarray) -> Callable:
    import torch
    from torchvision import ops

    def keep(boxes, scores, classes):
        if by_class:
            return ops.batched_nms(boxes, scores, classes, THRESHOLD)
        return ops.nms(boxes, scores, THRESHOLD)

    images = list(zip(*map(torch.tensor, arrays), strict=True))
    return lambda: sum(len(keep(*image)) for image in images)


def make_run(task: str, form: str) -> Callable:
    call = {"segjax": ours, "torchvision": torchvisions}[form](TASKS[task][-1], *inputs(task))
    return lambda: [call() for _ in range(CALLS)][-1]


if __name__ == "__main__":
    main(__doc__, {task: ["segjax", "torchvision"] for task in TASKS}, make_run)
