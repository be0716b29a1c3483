"""Time of bilinear resizing beside torch's: 150 channels from 64×64 to 512×512.

    pip install -e ".[parity]" && python experiments/benchmarks/resize.py

Ours is compiled and channels-last, theirs eager in both its layouts. Backward takes the gradient by
the large picture to that by the small one.

Results this large are allocated anew at every run, and the page faults may cost more than the work:
`MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000` before the command spares
both sides most of them.
"""

from collections.abc import Callable

import numpy as np
from harness import main

SMALL, LARGE, CHANNELS = 64, 512, 150
FORMS = ["segjax", "torch, channels-last", "torch, channels-first"]
TABLE = {"forward": FORMS, "backward": FORMS}


def inputs(task: str) -> np.ndarray:
    size = SMALL if task == "forward" else LARGE
    return np.random.default_rng(0).standard_normal((1, size, size, CHANNELS), np.float32)


def our_run(task: str) -> Callable[[], float]:
    import jax

    from segjax.ops import resize

    def forward(image):
        return resize(image, (LARGE, LARGE))

    def backward(cotangent):
        small = jax.ShapeDtypeStruct((1, SMALL, SMALL, CHANNELS), cotangent.dtype)
        return jax.linear_transpose(forward, small)(cotangent)[0]

    function = jax.jit(forward if task == "forward" else backward)
    array = jax.device_put(inputs(task), may_alias=False)

    def run():
        return jax.block_until_ready(function(array))[0, 0, 0, 0]

    return run


def their_run(task: str, form: str) -> Callable[[], float]:
    import torch

    layout = torch.channels_last if form.endswith("last") else torch.contiguous_format
    array = torch.tensor(inputs(task).transpose(0, 3, 1, 2)).contiguous(memory_format=layout)

    def forward():
        return torch.nn.functional.interpolate(array, size=(LARGE, LARGE), mode="bilinear")

    def backward():
        return torch.ops.aten.upsample_bilinear2d_backward(
            array, (LARGE, LARGE), (1, CHANNELS, SMALL, SMALL), False
        )

    function = forward if task == "forward" else backward
    return lambda: function()[0, 0, 0, 0]


def make_run(task: str, form: str) -> Callable[[], float]:
    return our_run(task) if form == "segjax" else their_run(task, form)


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
