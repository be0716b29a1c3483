"""Time and memory of the losses, value and gradient, beside torch, MONAI, SMP and kornia.

    pip install -e ".[parity]" && python experiments/benchmarks/losses.py

Every form runs in a process of its own; the processes take turns, a run each, and the medians
count. Ours is compiled and channels-last, theirs eager and channels-first (their faster layout).
Memory is what the process's peak (`ru_maxrss`) rises above the logits and one array of the same
size for the gradient, which every form has to hold. Takes about ten minutes on two cores.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

BATCH, SIZE, LOW, CLASSES = 8, 512, 64, 21

# The forms of each objective: ours first, then the peers'.
TABLE = {
    "cross-entropy + Dice": ["segjax", "segjax, in blocks", "segjax, two calls", "MONAI", "SMP"],
    "cross-entropy": ["segjax", "torch"],
    "softmax focal": ["segjax", "torch", "MONAI"],
    "Lovász-softmax, one image": ["segjax", "segjax, 1,000 bins", "SMP", "kornia"],
    "Lovász-softmax, one image, sharp": ["segjax", "segjax, 1,000 bins", "SMP", "kornia"],
    "cross-entropy + Dice of 64² logits": ["segjax", "segjax, resized first", "torch + MONAI"],
}


def inputs(objective: str) -> tuple[np.ndarray, np.ndarray]:
    """Normal logits `[b, h, w, c]`, in the sharp case right by 8 in the mean, and labels."""
    rng = np.random.default_rng(0)
    batch = 1 if "one image" in objective else BATCH
    size = LOW if "64²" in objective else SIZE
    labels = rng.integers(CLASSES, size=(batch, SIZE, SIZE))
    logits = rng.standard_normal((batch, size, size, CLASSES), np.float32)
    if "sharp" in objective:
        logits *= 2
        at_labels = np.take_along_axis(logits, labels[..., None], -1)
        np.put_along_axis(logits, labels[..., None], at_labels + 8, -1)
    return logits, labels


def our_objective(objective: str, form: str) -> Callable:
    import jax
    import jax.numpy as jnp

    from segjax import losses, ops

    def mean_of_both(pixels, dice):
        return pixels.mean() + dice.mean()

    def two_calls(logits, labels):
        one_hot = labels[..., None] == jnp.arange(CLASSES)
        dice = losses.dice_loss(jax.nn.softmax(logits), one_hot, axis=(-3, -2))
        return mean_of_both(losses.softmax_cross_entropy(logits, labels), dice)

    def lovasz(bins):
        return lambda logits, labels: losses.lovasz_softmax_loss(
            jax.nn.softmax(logits), labels, bins=bins
        )

    def resized_first(logits, labels):
        return two_calls(ops.resize(logits, labels.shape[1:]), labels)

    both, resized = losses.cross_entropy_and_dice, losses.resized_cross_entropy_and_dice
    forms = {
        "cross-entropy + Dice": {
            "segjax": lambda x, y: mean_of_both(*both(x, y)),
            "segjax, in blocks": lambda x, y: mean_of_both(*both(x, y, block=2**15)),
            "segjax, two calls": two_calls,
        },
        "cross-entropy": {"segjax": lambda x, y: losses.softmax_cross_entropy(x, y).mean()},
        "softmax focal": {"segjax": lambda x, y: losses.softmax_focal_loss(x, y).mean()},
        "Lovász-softmax, one image": {"segjax": lovasz(None), "segjax, 1,000 bins": lovasz(1000)},
        "cross-entropy + Dice of 64² logits": {
            "segjax": lambda x, y: mean_of_both(*resized(x, y)),
            "segjax, resized first": resized_first,
        },
    }
    return forms[objective.removesuffix(", sharp")][form]


def their_objective(objective: str, form: str) -> Callable:
    from torch.nn import functional

    def torch_focal(x, y):
        losses = functional.cross_entropy(x, y, reduction="none")
        return ((1 - (-losses).exp()) ** 2 * losses).mean()

    def monai_focal(x, y):
        from monai.losses import FocalLoss

        return FocalLoss(use_softmax=True, to_onehot_y=True)(x, y[:, None])

    def monai_dice(x, y):
        from monai.losses import DiceCELoss

        x = functional.interpolate(x, y.shape[1:], mode="bilinear") if x.shape[2] != SIZE else x
        return DiceCELoss(softmax=True, to_onehot_y=True)(x, y[:, None])

    def smp_dice(x, y):
        from segmentation_models_pytorch.losses import DiceLoss

        return functional.cross_entropy(x, y) + DiceLoss("multiclass")(x, y)

    def smp_lovasz(x, y):
        from segmentation_models_pytorch.losses import LovaszLoss

        return LovaszLoss("multiclass")(x, y)

    def kornia_lovasz(x, y):
        from kornia.losses import lovasz_softmax_loss

        return lovasz_softmax_loss(x, y)

    forms = {
        "cross-entropy + Dice": {"MONAI": monai_dice, "SMP": smp_dice},
        "cross-entropy": {"torch": functional.cross_entropy},
        "softmax focal": {"torch": torch_focal, "MONAI": monai_focal},
        "Lovász-softmax, one image": {"SMP": smp_lovasz, "kornia": kornia_lovasz},
        "cross-entropy + Dice of 64² logits": {"torch + MONAI": monai_dice},
    }
    return forms[objective.removesuffix(", sharp")][form]


def our_run(objective: str, form: str) -> Callable[[], float]:
    """A function that computes value and gradient once and returns the value."""
    import jax

    logits, labels = inputs(objective)
    labels = labels.astype(np.int32)
    function = jax.jit(jax.value_and_grad(our_objective(objective, form)))
    shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (logits, labels))
    compiled = function.lower(*shapes).compile()
    arrays = jax.device_put((logits, labels), may_alias=False)

    def run():
        value, gradient = compiled(*arrays)
        gradient.block_until_ready()
        return float(value)

    return run


def their_run(objective: str, form: str) -> Callable[[], float]:
    import torch

    logits, labels = inputs(objective)
    x = torch.tensor(logits.transpose(0, 3, 1, 2), requires_grad=True)
    y = torch.tensor(labels)
    function = their_objective(objective, form)

    def run():
        x.grad = None
        value = function(x, y)
        value.backward()
        return value.item()

    return run


def work(objective: str, form: str) -> None:
    """Answers every line on standard input with a run: its seconds, value and added memory."""
    run = (our_run if form.startswith("segjax") else their_run)(objective, form)
    room = np.ones(inputs(objective)[0].size, np.float32)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del room
    for _ in sys.stdin:
        start = time.perf_counter()
        value = run()
        seconds = time.perf_counter() - start
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
        print(json.dumps([seconds, value, added / 1024]), flush=True)


def measure(objective: str, forms: list[str], rounds: int) -> None:
    """Prints a line for each form."""
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "--work", objective, form],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for form in forms
    ]
    runs = [[] for _ in forms]
    for turn in range(rounds + 1):
        for worker, results in zip(workers, runs, strict=True):
            worker.stdin.write("\n")
            worker.stdin.flush()
            result = json.loads(worker.stdout.readline())
            if turn:  # the first warms up
                results.append(result)
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    milliseconds = [1000 * statistics.median(seconds for seconds, _, _ in run) for run in runs]
    print(f"\n### {objective}\n\n| form | ms | of the fastest peer's | added MiB | value |")
    print("|---|---|---|---|---|")
    best = min(ms for form, ms in zip(forms, milliseconds, strict=True) if "segjax" not in form)
    for form, ms, run in zip(forms, milliseconds, runs, strict=True):
        _, value, added = run[-1]
        print(f"| {form} | {ms:.0f} | {ms / best:.2f} | {added:.0f} | {value:.6f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each form")
    parser.add_argument("--only", default="", help="objectives with this in their name")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(*arguments.work)
    for objective, forms in TABLE.items():
        if arguments.only in objective:
            measure(objective, forms, arguments.rounds)
    return None


if __name__ == "__main__":
    main()
