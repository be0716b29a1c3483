"""The losses in one pass are the plain ones, value and gradient; and they hold far less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import ops
from segjax.losses import (
    cross_entropy_and_dice,
    dice_loss,
    lovasz_softmax_loss,
    resized_cross_entropy,
    resized_cross_entropy_and_dice,
    softmax_cross_entropy,
)


def _plain(logits, labels, *, where=None, smooth=0.0, align_corners=False):
    logits = ops.resize(logits, labels.shape[-2:], align_corners=align_corners)
    losses = softmax_cross_entropy(logits, labels, where=where)
    one_hot = labels[..., None] == jnp.arange(logits.shape[-1])
    valid = None if where is None else where[..., None]
    probs = jax.nn.softmax(logits)
    return losses, dice_loss(probs, one_hot, axis=(-3, -2), where=valid, smooth=smooth)


def _example(low, high, batch=(2,), num_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(*batch, *low, num_classes)).astype(np.float32)
    labels = rng.integers(num_classes, size=(*batch, *high))
    labels[labels == 3] = 0  # one class is absent
    return jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(rng.random(labels.shape) < 0.8)


def _value_and_gradient(function, logits, labels, **options):
    """With a weight of its own for every pixel and class."""

    def objective(logits):
        losses, dice = outputs = function(logits, labels, **options)
        weights = (1 + jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in outputs)
        return sum(jnp.sum(w * x) for w, x in zip(weights, (losses, dice), strict=True)), outputs

    (_, outputs), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(logits)
    return *outputs, gradient


SIZES = [
    pytest.param((6, 8), (6, 8), (2,), id="as they are"),
    pytest.param((4, 5), (16, 20), (2,), id="4 times"),
    pytest.param((5, 7), (13, 11), (), id="odd, no batch"),
    pytest.param((9, 10), (5, 4), (1, 2), id="smaller"),
    pytest.param((1, 1), (7, 3), (2,), id="from one pixel"),
]


@pytest.mark.parametrize(("block", "masked"), [(1, True), (24, False), (24, True), (None, True)])
@pytest.mark.parametrize(("low", "high", "batch"), SIZES)
def test_equals_the_plain_losses(low, high, batch, block, masked):
    logits, labels, where = _example(low, high, batch)
    where = where if masked else None
    for align_corners in {False, low == (4, 5)}:
        run = functools.partial(
            _value_and_gradient, logits=logits, labels=labels, where=where, smooth=0.5
        )
        actual = run(
            functools.partial(
                resized_cross_entropy_and_dice, block=block, align_corners=align_corners
            )
        )
        expected = run(functools.partial(_plain, align_corners=align_corners))
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_cross_entropy_alone_is_the_same():
    logits, labels, where = _example((4, 5), (16, 20))
    both = resized_cross_entropy_and_dice(logits, labels, where=where)[0]
    np.testing.assert_array_equal(resized_cross_entropy(logits, labels, where=where), both)


def test_hessian_is_that_of_the_plain_losses():
    logits, labels, _ = _example((2, 2), (3, 4), ())

    def hessian(function):
        return jax.hessian(lambda x: sum(jnp.sum(t) for t in function(x, labels)))(logits)

    np.testing.assert_allclose(
        hessian(resized_cross_entropy_and_dice), hessian(_plain), rtol=1e-4, atol=1e-5
    )


def test_blocks_hold_little_memory():
    """What XLA reserves besides arguments and results, against the plain form."""
    logits, labels, _ = _example((32, 32), (256, 256), num_classes=19)

    def reserved(function):
        objective = lambda x: sum(jnp.mean(t) for t in function(x, labels))
        compiled = jax.jit(jax.value_and_grad(objective)).lower(logits).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    blocks = functools.partial(resized_cross_entropy_and_dice, block=2**12)
    assert reserved(blocks) < 0.2 * reserved(_plain)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: cross_entropy_and_dice(x, y), "labels: expected"),
        (lambda x, y: resized_cross_entropy(x[0], y), "logits, labels: expected"),
        (lambda x, y: resized_cross_entropy(x, y, block=0), r"block: expected .*got 0"),
    ],
)
def test_errors_name_the_argument(call, message):
    logits, labels, _ = _example((4, 5), (8, 10))
    with pytest.raises(ValueError, match=message):
        call(logits, labels)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("loss", [resized_cross_entropy, lovasz_softmax_loss])
def test_labels_are_integers(loss):
    with pytest.raises(TypeError, match="labels: expected integers, got float32"):
        loss(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3)))
