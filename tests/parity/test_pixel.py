"""Pixel and Lovász losses have the values and gradients of torch's libraries, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses import (
    lovasz_hinge_loss,
    lovasz_softmax_loss,
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    softmax_focal_loss,
)

SCRIPT = Path(__file__).parent / "golden" / "torch_pixel.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = (
    "torch",
    "torchvision",
    "monai",
    "segmentation_models_pytorch",
    "kornia",
)


def _binary_focal(x, y):
    return sigmoid_focal_loss(x, y["one_hot"], alpha=0.3, gamma=1.5)


def _lovasz_of_each_image(x, y, *, classes):
    loss = functools.partial(lovasz_softmax_loss, classes=classes)
    return jax.vmap(loss)(jax.nn.softmax(x), y["labels"])


def _hinge_of_each_image(x, y):
    return jax.vmap(lovasz_hinge_loss)(x[..., 2], y["one_hot"][..., 2])


# The losses, of logits `x`, whose mean is the peer's.
OURS = {
    "torch cross-entropy": lambda x, y: sigmoid_cross_entropy(
        x, y["soft"], pos_weight=y["weights"]
    ),
    "smp cross-entropy": lambda x, y: sigmoid_cross_entropy(x, y["one_hot"], label_smoothing=0.2),
    "torchvision focal": lambda x, y: sigmoid_focal_loss(x, y["soft"], alpha=0.3, gamma=1.5),
    "torchvision unbalanced": lambda x, y: sigmoid_focal_loss(x, y["soft"]),
    "kornia binary focal": _binary_focal,
    "monai sigmoid focal": _binary_focal,
    "smp binary focal": _binary_focal,
    "smp multiclass focal": lambda x, y: _binary_focal(x, y).mean(where=y["valid"][..., None]),
    "kornia focal": lambda x, y: softmax_focal_loss(
        x, y["labels"], gamma=1.5, class_weights=y["weights"], where=y["valid"]
    ),
    "kornia alpha": lambda x, y: softmax_focal_loss(
        x, y["labels"], class_weights=jnp.array([0.7, 0.3, 0.3])
    ),
    "monai softmax focal": lambda x, y: softmax_focal_loss(
        x, y["labels"], gamma=1.5, class_weights=y["weights"]
    ),
    "smp lovasz": lambda x, y: lovasz_softmax_loss(
        jax.nn.softmax(x), y["labels"], where=y["valid"]
    ),
    "smp lovasz per image": functools.partial(_lovasz_of_each_image, classes="present"),
    "kornia lovasz": functools.partial(_lovasz_of_each_image, classes="all"),
    "smp hinge": lambda x, y: lovasz_hinge_loss(x[..., 2], y["one_hot"][..., 2], where=y["valid"]),
    "smp hinge per image": _hinge_of_each_image,
    "kornia hinge": _hinge_of_each_image,
}


@functools.partial(jax.jit, static_argnums=0)
def _value_and_gradient(loss, logits, targets):
    return jax.value_and_grad(lambda logits: loss(logits, targets).mean())(logits)


@pytest.mark.parametrize("case", OURS)
def test_value_and_gradient(golden, case):
    targets = {name: jnp.asarray(golden[name]) for name in ("labels", "soft", "weights", "valid")}
    targets["one_hot"] = targets["labels"][..., None] == jnp.arange(3)
    loss, gradient = _value_and_gradient(OURS[case], jnp.asarray(golden["logits"]), targets)
    expected = golden[f"{case}_loss"]
    atol = 1e-12 if expected.dtype == np.float64 else 1e-6
    np.testing.assert_allclose(loss, expected, atol=atol)
    np.testing.assert_allclose(gradient, golden[f"{case}_gradient"], atol=atol)


def test_a_class_ruled_out_changes_nothing():
    """MONAI's loss is NaN there: it multiplies the −∞ of that class by the 0 of the label."""
    logits, labels = jnp.array([[0.3, -0.4, -jnp.inf]]), jnp.array([0])
    loss, gradient = _value_and_gradient(softmax_focal_loss, logits, labels)
    expected, of_others = _value_and_gradient(softmax_focal_loss, logits[:, :2], labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, [[*of_others[0], 0]], rtol=1e-12)
