"""Time of the exact distance transform of eight masks of 512² pixels, beside SciPy and OpenCV.

    pip install -e ".[test]" && python experiments/benchmarks/distance.py

The peers are called in a loop over the masks. Distances are short in blobs and noise, and long
where few pixels are False. Takes about a minute on two cores.
"""

from collections.abc import Callable

import numpy as np
from harness import main

BATCH, SIZE = 8, 512

FORMS = ["segjax", "SciPy", "OpenCV"]
TASKS = ["blobs", "noise", "a disk", "60 points", "a diagonal", "three corners", "one corner"]
TABLE = {task: FORMS for task in TASKS}


def inputs(task: str) -> np.ndarray:
    """Masks `[b, h, w]`, with False where distances are to be measured to."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    if task == "blobs":
        return ndimage.gaussian_filter(rng.normal(size=(BATCH, SIZE, SIZE)), (0, 16, 16)) > 0
    if task == "noise":
        return rng.random((BATCH, SIZE, SIZE)) < 0.5
    y, x = np.mgrid[:SIZE, :SIZE]
    masks = np.ones((BATCH, SIZE, SIZE), bool)
    if task == "a disk":
        masks &= np.hypot(y - SIZE / 2, x - SIZE / 2) < 0.45 * SIZE
    elif task == "60 points":
        for mask in masks:
            mask.flat[rng.choice(mask.size, 60, replace=False)] = False
    elif task == "a diagonal":
        masks &= y != x
    else:
        corners = [(0, 0), (0, -1), (-1, -1)]
        for row, column in corners if task == "three corners" else corners[:1]:
            masks[:, row, column] = False
    return masks


def our_transform() -> Callable:
    import jax

    from segjax.ops import distance_transform

    compiled = jax.jit(distance_transform)
    return lambda masks: compiled(masks).block_until_ready()


def their_transform(form: str) -> Callable:
    if form == "SciPy":
        from scipy.ndimage import distance_transform_edt as of_mask
    else:
        import cv2

        def of_mask(mask):
            return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)

    return lambda masks: [of_mask(mask) for mask in masks]


def make_run(task: str, form: str) -> Callable[[], float]:
    """A function that transforms all masks and returns the mean of the last one's distances."""
    masks = inputs(task)
    if form == "segjax":
        import jax

        transform, masks = our_transform(), jax.device_put(masks)
    else:
        transform = their_transform(form)
    return lambda: np.mean(transform(masks)[-1], dtype=float)


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
