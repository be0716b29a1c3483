"""Time of ROIAlign beside torchvision's: 1,000 boxes, 256 channels.

    pip install -e ".[parity]" && python experiments/benchmarks/roi_align.py

Ours is compiled and channels-last, theirs eager and channels-first (the only layout it has). The
boxes' sides are 1/20 to 4/5 of the map's; forward + backward gives the gradient by the features.

Results this large are allocated anew at every run, and the page faults may cost more than the work:
`MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000` before the command spares
both sides most of them.
"""

from collections.abc import Callable

import numpy as np
from harness import main

BOXES, CHANNELS = 1000, 256
MAPS = {"64×64": (64, 64), "200×336": (200, 336)}
FORMS = ["segjax", "torchvision"]
TASKS = [f"{size}×{size} on {features}" for features in MAPS for size in (7, 14)]
TABLE = {
    f"{direction}, {task}": FORMS
    for task in (*TASKS, "7×7 on 64×64, adaptive")
    for direction in ("forward", "forward + backward")
}


def inputs(task: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Features `[h, w, c]`, boxes `[n, 4]`, and the side of the output."""
    _, what = task.split(", ", 1)
    size, features = what.removesuffix(", adaptive").split(" on ")
    height, width = MAPS[features]
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 1, (BOXES, 2)) * (width, height)
    sides = np.exp(rng.uniform(np.log(0.05), np.log(0.8), (BOXES, 2))) * (width, height)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    features = rng.standard_normal((height, width, CHANNELS), np.float32)
    return features, boxes.astype(np.float32), int(size.split("×")[0])


def our_run(task: str) -> Callable[[], float]:
    import jax

    from segjax.ops import roi_align

    features, boxes, size = inputs(task)
    ratio = None if "adaptive" in task else 2

    def forward(features, boxes):
        return roi_align(features, boxes, (size, size), sampling_ratio=ratio)

    def both(features, boxes):
        pooled, pull = jax.vjp(lambda features: forward(features, boxes), features)
        return pooled, *pull(pooled)

    function = jax.jit(both if "backward" in task else forward)
    arrays = jax.device_put((features, boxes), may_alias=False)

    def run():
        results = jax.block_until_ready(function(*arrays))
        return jax.tree.leaves(results)[-1].ravel()[0]

    return run


def their_run(task: str) -> Callable[[], float]:
    import torch
    from torchvision.ops import roi_align

    features, boxes, size = inputs(task)
    backward = "backward" in task
    features = torch.tensor(features.transpose(2, 0, 1)[None].copy(), requires_grad=backward)
    boxes = [torch.tensor(boxes)]
    ratio = -1 if "adaptive" in task else 2

    def run():
        features.grad = None
        pooled = roi_align(features, boxes, size, sampling_ratio=ratio, aligned=True)
        if backward:
            pooled.backward(pooled.detach())
        return (features.grad if backward else pooled).flatten()[0]

    return run


def make_run(task: str, form: str) -> Callable[[], float]:
    return our_run(task) if form == "segjax" else their_run(task)


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
