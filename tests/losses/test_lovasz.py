"""The Lovász losses against their definition: the Jaccard loss of growing sets of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.losses import lovasz_hinge_loss, lovasz_softmax_loss

_lovasz_softmax = jax.jit(lovasz_softmax_loss, static_argnames=("classes", "bins"))


def _jaccard_loss(wrong, foreground):
    """Of the prediction that is wrong at these pixels."""
    predicted = foreground ^ wrong
    union = (predicted | foreground).sum()
    return 1 - (predicted & foreground).sum() / union if union else 0.0


def _extension(errors, foreground):
    """`Σ e_i g_i` and `g`, one pixel after the other."""
    wrong, weights = np.zeros(errors.size, bool), np.zeros(errors.size)
    for pixel in np.argsort(-errors, kind="stable"):
        before = _jaccard_loss(wrong, foreground)
        wrong[pixel] = True
        weights[pixel] = _jaccard_loss(wrong, foreground) - before
    return errors @ weights, weights


def _example(seed, pixels=40, num_classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=pixels)
    probs = rng.dirichlet(np.ones(num_classes), size=pixels).astype(np.float32)
    return probs, labels


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_softmax_is_the_definition(seed, classes):
    probs, labels = _example(seed, num_classes=4)
    labels[labels == 2] = 1  # class 2 is absent
    value, gradient = jax.value_and_grad(lovasz_softmax_loss)(probs, labels, classes=classes)
    counted = [0, 1, 3] if classes == "present" else range(4)
    total, expected = 0, np.zeros_like(probs)
    for c in counted:
        foreground = labels == c
        loss, weights = _extension(np.abs(foreground - probs[:, c]), foreground)
        total += loss / len(counted)
        expected[:, c] = np.where(foreground, -weights, weights) / len(counted)
    np.testing.assert_allclose(value, total, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("sharpness", [0.0, 3.0, 30.0])
def test_sets_of_every_size_that_matters(sharpness):
    """The better the prediction, the fewer pixels are sorted: from all of them to a few."""
    rng = np.random.default_rng(0)
    targets = rng.random(300) < 0.4
    logits = (rng.normal(size=300) + sharpness * (targets - 0.5)).astype(np.float32)
    probs = np.stack([1 - 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-logits))], -1)
    value = _lovasz_softmax(probs, targets.astype(int))
    expected = np.mean(
        [
            _extension(np.abs(foreground - probs[:, c]), foreground)[0]
            for c, foreground in enumerate([~targets, targets])
        ]
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)


def test_hinge_is_the_definition():
    rng = np.random.default_rng(3)
    logits, targets = rng.normal(size=50).astype(np.float32) * 2, rng.random(50) < 0.3
    value, gradient = jax.value_and_grad(lovasz_hinge_loss)(logits, targets)
    signs = np.where(targets, 1, -1)
    errors = np.maximum(0, 1 - logits * signs)
    loss, weights = _extension(errors, targets)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.where(errors > 0, -signs * weights, 0), atol=1e-6)


@given(st.lists(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]), min_size=8, max_size=8))
def test_at_the_corners_it_is_the_jaccard_loss(pixels):
    """Of certain predictions: the mean of the Jaccard losses of both classes."""
    labels, predictions = np.array(pixels).T
    loss = _lovasz_softmax(np.eye(2, dtype=np.float32)[predictions], labels)
    wrong = predictions != labels
    losses = [_jaccard_loss(wrong, labels == c) for c in (0, 1) if (labels == c).any()]
    np.testing.assert_allclose(loss, np.mean(losses), atol=1e-6)


@pytest.mark.parametrize("bins", [1, 3, 50])
def test_bins_lose_at_most_their_width(bins):
    for seed in range(10):
        probs, labels = _example(seed)
        exact = _lovasz_softmax(probs, labels)
        binned = _lovasz_softmax(probs, labels, bins=bins)
        assert exact - 1 / bins - 1e-6 <= binned <= exact + 1e-6


def test_pixels_alike_share_the_gradient():
    """Whatever their order, and together they have what they would have one after the other."""
    labels = np.array([1, 0, 0, 0, 1, 0])
    probs = np.array([0.25, 0.5, 0.5, 0.5, 0.5, 0.1], np.float32)
    probs = np.stack([1 - probs, probs], -1)
    gradient = jax.grad(lovasz_softmax_loss)(probs, labels)
    np.testing.assert_array_equal(gradient[1], gradient[2])
    np.testing.assert_array_equal(gradient[1], gradient[3])
    sums = [_extension(np.abs((labels == c) - probs[:, c]), labels == c)[1].sum() for c in (0, 1)]
    np.testing.assert_allclose(np.abs(gradient).sum(0), np.array(sums) / 2, rtol=1e-6)


def test_an_absent_class_without_any_error_is_held_at_0():
    """Where all errors are 0 they can only grow with the probabilities."""
    probs = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    gradient = jax.grad(lovasz_softmax_loss)(probs, np.zeros(2, int), classes="all")
    np.testing.assert_allclose(gradient[:, 1], [0.25, 0.25])


def test_probabilities_rounded_to_above_1_are_certain():
    labels, probs = np.array([1, 0]), np.array([[0, 1 + 2e-7], [0.5, 0.5]], np.float32)
    expected = lovasz_softmax_loss(np.clip(probs, 0, 1), labels)
    np.testing.assert_allclose(lovasz_softmax_loss(probs, labels), expected, rtol=1e-6)


def test_all_of_an_absent_class_falls_on_its_worst_pixels():
    probs = np.array([[0.2, 0.8], [0.7, 0.3], [0.2, 0.8]], np.float32)
    where = jnp.array([True, True, True])
    labels = np.zeros(3, int)
    gradient = jax.grad(lovasz_softmax_loss)(probs, labels, classes="all", where=where)
    np.testing.assert_allclose(gradient[:, 1], [0.25, 0, 0.25], rtol=1e-6)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: lovasz_softmax_loss(p, y[1:]), "labels: expected"),
        (lambda p, y: lovasz_softmax_loss(p, y, classes="some"), r"classes: expected .*got 'some'"),
        (lambda p, y: lovasz_softmax_loss(p, y, bins=0), r"bins: expected .*got 0"),
        (lambda p, y: lovasz_hinge_loss(p, y), "targets: expected"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(*_example(0))
