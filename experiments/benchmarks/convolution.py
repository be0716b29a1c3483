"""CPU time of convolutions beside XLA's own, by form: outputs and both gradients.

    python experiments/benchmarks/convolution.py
    XLA_FLAGS=--xla_cpu_max_isa=AVX2 python experiments/benchmarks/convolution.py

Takes the shapes of the models. A time is the least of several runs, which take turns; CPU time
is that of all threads, which other processes on the machine hardly change. The end lists the forms
that segjax chooses although they save less than a tenth; such a form is not worth its code.
"""

import argparse
import functools
import statistics
import time
from collections import defaultdict

import jax
import numpy as np

from segjax.models.layers.forms import ROLES, Geometry, cpu_form, fastest_form, library_form


def _plane(size, kernel, channels, features, *, stride=1, dilation=1, groups=1, padding=None):
    padding = dilation * (kernel - 1) // 2 if padding is None else padding
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
    "U-Net, volume": (1, Geometry((16,) * 3, (3,) * 3, 16, 16, 1, 1, 1, 1)),
    "MobileNetV3, 5x5": (2, _plane(32, 5, 72, 72, stride=2, groups=72)),
    "MobileNetV3, 3x3": (2, _plane(16, 3, 240, 240, groups=240)),
    "MiT, embedding": (2, _plane(128, 7, 3, 64, stride=4)),
    "MiT, reduction": (2, _plane(32, 8, 64, 64, stride=8, padding=0)),
    "MiT, Mix-FFN": (2, _plane(32, 3, 256, 256, groups=256)),
    "ViT, embedding": (2, _plane(128, 16, 3, 384, stride=16, padding=0)),
    "Mask head": (16, _plane(14, 3, 256, 256)),
}
WORTH = 1.1


def operands(role: str, batch: int, geometry: Geometry) -> list[jax.Array]:
    """The two that `role` is computed from."""
    shapes = {
        "image": (batch, *geometry.image_size, geometry.channels),
        "kernel": (
            *geometry.kernel_size,
            geometry.channels // geometry.groups,
            geometry.features,
        ),
        "output": (batch, *geometry.output_size, geometry.features),
    }
    random = np.random.default_rng(0)
    return [
        jax.device_put(random.standard_normal(shape, np.float32))
        for name, shape in shapes.items()
        if name != role
    ]


def least_times(functions, arguments, rounds: int) -> list[tuple[float, float]]:
    """CPU and wall-clock milliseconds of each function."""
    times: list[list[tuple[float, float]]] = [[] for _ in functions]
    repeats = []
    for function in functions:
        jax.block_until_ready(function(*arguments))  # compiles
        start = time.process_time()
        jax.block_until_ready(function(*arguments))
        repeats.append(max(1, int(0.02 / (time.process_time() - start + 1e-6))))
    for _ in range(rounds):
        for function, number, found in zip(functions, repeats, times, strict=True):
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(number):
                jax.block_until_ready(function(*arguments))
            seconds = time.process_time() - cpu, time.perf_counter() - wall
            found.append(tuple(1000 * x / number for x in seconds))
    return [tuple(min(column) for column in zip(*found, strict=True)) for found in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each form")
    parser.add_argument("--only", default="", help="cases with this in their name")
    arguments = parser.parse_args()
    gains = defaultdict(dict)
    print("| case | of | form | CPU ms | XLA's CPU ms | CPU gain | wall gain |")
    print("|---|---|---|---|---|---|---|")
    for name, (batch, geometry) in CASES.items():
        for role in ROLES:
            form = fastest_form(role, geometry)
            if arguments.only not in name or form is library_form:
                continue
            options = {"role": role, "geometry": geometry}
            functions = [jax.jit(functools.partial(f, **options)) for f in (cpu_form, library_form)]
            ours, xlas = least_times(functions, operands(role, batch, geometry), arguments.rounds)
            gain, wall_gain = (b / a for a, b in zip(ours, xlas, strict=True))
            label = f"{form.__name__}, {role}"
            gains[label][name] = gain
            print(
                f"| {name} | {role} | {form.__name__} | {ours[0]:.2f} | {xlas[0]:.2f} "
                f"| {gain:.2f} | {wall_gain:.2f} |",
                flush=True,
            )
    print()
    for label, of_cases in gains.items():
        print(f"{label}: median gain {statistics.median(of_cases.values()):.2f}")
        for name, gain in of_cases.items():
            if gain < WORTH:
                print(f"  does not pay: {name} ({gain:.2f})")


if __name__ == "__main__":
    main()
