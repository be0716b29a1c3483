"""Focal, poly and symmetric losses against their formulas; hard pixels against a sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.losses import (
    hard_pixels,
    poly_cross_entropy,
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    softmax_cross_entropy,
    softmax_focal_loss,
    symmetric_cross_entropy,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3, size=(4, 5, 3)).astype(np.float32)
LABELS = RNG.integers(3, size=(4, 5))
PROBS = np.take_along_axis(np.asarray(jax.nn.softmax(LOGITS)), LABELS[..., None], -1)[..., 0]


def test_focal_losses_with_gamma_0_are_cross_entropies():
    np.testing.assert_allclose(
        softmax_focal_loss(LOGITS, LABELS, gamma=0.0), softmax_cross_entropy(LOGITS, LABELS)
    )
    targets = RNG.random(LOGITS.shape).astype(np.float32)
    np.testing.assert_allclose(
        sigmoid_focal_loss(LOGITS, targets, gamma=0.0), sigmoid_cross_entropy(LOGITS, targets)
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
def test_softmax_focal_is_its_formula(gamma):
    weights = np.array([0.5, 1, 2], np.float32)
    losses = softmax_focal_loss(LOGITS, LABELS, gamma=gamma, class_weights=weights)
    expected = -weights[LABELS] * (1 - PROBS) ** gamma * np.log(PROBS)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-7)


def test_two_classes_by_softmax_or_by_sigmoid():
    """`softmax((0, x))` is `σ(x)`: the same loss, and the same gradient."""
    x, y = LOGITS[..., 0], LABELS == 1
    sigmoid = jax.value_and_grad(lambda x: sigmoid_focal_loss(x, y).sum())(x)
    softmax = jax.value_and_grad(
        lambda x: softmax_focal_loss(jnp.stack([0 * x, x], -1), y.astype(int)).sum()
    )(x)
    for a, b in zip(sigmoid, softmax, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.3, 2.0])
def test_focal_gradient_of_certain_pixels_is_finite(gamma):
    """`(1 − p)^γ` has an infinite slope at `p = 1` for `γ < 1`; the loss has not."""
    x = jnp.array([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    slope = jax.vmap(jax.grad(lambda x, y: sigmoid_focal_loss(x, y, gamma=gamma)), (0, None))
    for y in (0.0, 1.0):
        gradient = np.asarray(slope(x, jnp.float32(y)))
        assert np.isfinite(gradient).all()
        assert (gradient * (1 - 2 * y) >= 0).all()


def test_poly_and_symmetric_are_their_formulas():
    np.testing.assert_allclose(
        poly_cross_entropy(LOGITS, LABELS, epsilon=-0.5),
        -np.log(PROBS) - 0.5 * (1 - PROBS),
        rtol=1e-4,
        atol=1e-6,
    )
    one_hot = np.eye(3)[LABELS]
    reverse = -np.sum(jax.nn.softmax(LOGITS) * np.where(one_hot > 0, 0.0, -6.0), -1)
    np.testing.assert_allclose(
        symmetric_cross_entropy(LOGITS, LABELS, alpha=0.5, beta=2.0, log_zero=-6.0),
        -0.5 * np.log(PROBS) + 2 * reverse,
        rtol=1e-4,
        atol=1e-6,
    )


@given(
    st.lists(st.integers(0, 5), min_size=20, max_size=20),
    st.sampled_from([1, 5, 19, 40]),
    st.one_of(st.none(), st.floats(-1, 6)),
    st.data(),
)
def test_hard_pixels_are_the_first_of_a_stable_sort(losses, count, threshold, data):
    losses = np.array(losses, np.float32)
    where = np.array(data.draw(st.lists(st.booleans(), min_size=losses.size, max_size=losses.size)))
    kept = hard_pixels(losses, count=count, threshold=threshold, where=where)
    valid = np.flatnonzero(where)
    worst = valid[np.argsort(-losses[valid], kind="stable")[:count]]
    expected = np.isin(np.arange(losses.size), worst)
    if threshold is not None:
        expected |= where & (losses > threshold)
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hard_pixels(LOGITS), ValueError, "count, threshold: expected"),
        (
            lambda: poly_cross_entropy(LOGITS, LOGITS),
            TypeError,
            "labels: expected integers, got float32",
        ),
        (lambda: softmax_focal_loss(LOGITS, LABELS[1:]), ValueError, "labels: expected"),
        (lambda: sigmoid_focal_loss(LOGITS, LABELS), ValueError, "targets: expected"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
