"""CPU time of the forms of a convolution beside XLA's own: its output and both gradients.

    python experiments/benchmarks/convolution.py
    XLA_FLAGS=--xla_cpu_max_isa=AVX2 python experiments/benchmarks/convolution.py

Takes the shapes of the models, once for the whole batch and once in a loop over its examples, where
XLA's own gradients are far slower. The times are CPU time of all threads, which other processes on
the machine hardly change: the least of several runs, in which the forms take turns. The form that
segjax chooses is marked by a star. The end lists the cases in which another form is faster by a
tenth or more, by the geometric mean of both times: there the choice no longer pays.
"""

import argparse
import functools
import math
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from segjax.models.layers import forms
from segjax.models.layers.forms import ROLES, Geometry


def _plane(size, kernel, channels, features, *, stride=1, dilation=1, groups=1, padding=None):
    if padding is None:
        padding = dilation * (kernel - 1) // 2
    return Geometry(
        (size,) * 2, (kernel,) * 2, channels, features, stride, dilation, padding, groups
    )


# By model and layer: batch size and geometry.
CASES = {
    "ResNet, stem": (2, _plane(128, 7, 3, 64, stride=2)),
    "ResNet, stage 1": (2, _plane(32, 3, 64, 64)),
    "ResNet, stage 4": (2, _plane(8, 3, 512, 512)),
    "ResNet, start of stage 2": (2, _plane(32, 3, 64, 128, stride=2)),
    "ResNet, shortcut": (2, _plane(32, 1, 256, 512, stride=2)),
    "FCN, dilated by 2": (2, _plane(16, 3, 256, 256, dilation=2)),
    "DeepLabV3, dilated by 12": (2, _plane(16, 3, 2048, 256, dilation=12)),
    "DeepLabV3+, dilated by 12": (2, _plane(16, 3, 512, 512, dilation=12, groups=512)),
    "U-Net, full size": (2, _plane(128, 3, 16, 16)),
    "U-Net, lower level": (2, _plane(16, 3, 128, 128)),
    "U-Net, volume": (2, Geometry((16,) * 3, (3,) * 3, 16, 16, 1, 1, 1, 1)),
    "MobileNetV3, 5x5": (2, _plane(32, 5, 72, 72, stride=2, groups=72)),
    "MiT, embedding": (2, _plane(128, 7, 3, 64, stride=4)),
    "MiT, reduction": (2, _plane(32, 8, 64, 64, stride=8, padding=0)),
    "MiT, Mix-FFN": (2, _plane(32, 3, 256, 256, groups=256)),
    "ViT, embedding": (2, _plane(128, 16, 3, 384, stride=16, padding=0)),
    "Mask head": (4, _plane(14, 3, 256, 256)),
}
WORTH = 1.1


def candidates(role: str, geometry: Geometry) -> Iterator[Callable]:
    """The forms of segjax that can compute `role`."""
    if geometry.groups > 1:
        yield forms._depthwise_form
        return
    yield forms._cropped_form
    if role != "output":
        yield forms._turned_form
    if role == "kernel" and geometry.dilation == 1:
        yield forms._blocked_form


def operands(role: str, batch: int, geometry: Geometry) -> dict[str, jax.Array]:
    """The two that `role` is computed from."""
    channels = geometry.channels // geometry.groups
    shapes = {
        "image": (batch, *geometry.image_size, geometry.channels),
        "kernel": (*geometry.kernel_size, channels, geometry.features),
        "output": (batch, *geometry.output_size, geometry.features),
    }
    random = np.random.default_rng(0)
    return {
        name: jax.device_put(random.standard_normal(shape, np.float32))
        for name, shape in shapes.items()
        if name != role
    }


def in_loop(function: Callable) -> Callable:
    """`function` of one example after the other."""

    def loop(**arrays):
        kernel = {name: arrays.pop(name) for name in ("kernel",) if name in arrays}

        def one(example):
            example = {name: x[None] for name, x in example.items()} | kernel
            return function(*(example[name] for name in ROLES if name in example))

        return jax.lax.map(one, arrays)

    return loop


def least_times(functions: list[Callable], arrays: dict, rounds: int) -> list[float]:
    """CPU milliseconds of each function."""
    least, repeats = [math.inf] * len(functions), []
    for function in functions:
        jax.block_until_ready(function(**arrays))  # compiles
        start = time.process_time()
        jax.block_until_ready(function(**arrays))
        repeats.append(max(1, int(0.02 / (time.process_time() - start + 1e-6))))
    for _ in range(rounds):
        for i, (function, number) in enumerate(zip(functions, repeats, strict=True)):
            start = time.process_time()
            for _ in range(number):
                jax.block_until_ready(function(**arrays))
            least[i] = min(least[i], 1000 * (time.process_time() - start) / number)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each form")
    parser.add_argument("--only", default="", help="cases with this in their name")
    arguments = parser.parse_args()
    faster = []
    print("| case | of | form | ms | XLA's ms | in a loop ms | XLA's in a loop ms |")
    print("|---|---|---|---|---|---|---|")
    for name, (batch, geometry) in CASES.items():
        for role in ROLES if arguments.only in name else ():
            tried = [forms.library_form, *candidates(role, geometry)]
            functions = [functools.partial(f, role=role, geometry=geometry) for f in tried]
            arrays = operands(role, batch, geometry)
            whole = [jax.jit(lambda f=f, **x: f(*x.values())) for f in functions]
            looped = [jax.jit(in_loop(f)) for f in functions]
            times = [least_times(kind, arrays, arguments.rounds) for kind in (whole, looped)]
            chosen = tried.index(forms.fastest_form(role, geometry))
            for i, (form, alone, loop) in enumerate(zip(tried, *times, strict=True)):
                label = form.__name__.strip("_").replace("_form", "") + "*" * (i == chosen)
                columns = alone, times[0][0], loop, times[1][0]
                print(
                    f"| {name} | {role} | {label} |", *(f"{x:.2f} |" for x in columns), flush=True
                )
            costs = [math.sqrt(alone * loop) for alone, loop in zip(*times, strict=True)]
            best = costs.index(min(costs))
            if costs[chosen] > WORTH * costs[best]:
                gain = costs[chosen] / costs[best]
                faster.append(f"{name}, {role}: {tried[best].__name__} is {gain:.2f} times as fast")
    print("\nThe choice no longer pays for:", *(faster or ["none"]), sep="\n  ")


if __name__ == "__main__":
    main()
