"""Time and memory of the losses, value and gradient, beside torch, MONAI, SMP and kornia.

    pip install -e ".[parity]" && python experiments/benchmarks/losses.py

Ours is compiled and channels-last, theirs eager and channels-first (their faster layout). The
gradient, which every form has to hold, does not count as added memory. Takes about ten minutes on
two cores.
"""

from collections.abc import Callable

import numpy as np
from harness import main

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


def make_run(objective: str, form: str) -> Callable[[], float]:
    return (our_run if form.startswith("segjax") else their_run)(objective, form)


if __name__ == "__main__":
    main(__doc__, TABLE, make_run, result_size=lambda objective: inputs(objective)[0].size)
