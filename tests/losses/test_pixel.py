import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from segjax.losses import pixel_weights, softmax_cross_entropy

logit_maps = hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-30, 30, width=32))
label_maps = hnp.arrays(np.int32, (3, 4), elements=st.integers(0, 4))


def _random(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32)
    return logits, rng.integers(5, size=(3, 4), dtype=np.int32)


@given(logit_maps, label_maps)
def test_values_are_scipys(logits, labels):
    log_probs = special.log_softmax(logits.astype(np.float64), axis=-1)
    expected = -np.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    losses = softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


@given(logit_maps, label_maps)
def test_gradient_is_probability_minus_target(logits, labels):
    gradient = jax.grad(lambda logits: softmax_cross_entropy(logits, labels).sum())(logits)
    expected = special.softmax(logits, axis=-1) - np.eye(5)[labels]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@given(logit_maps, label_maps, st.floats(0, 1))
def test_integer_labels_are_one_hot_soft_labels(logits, labels, label_smoothing):
    class_weights = np.arange(1, 6, dtype=np.float32)
    options = {"class_weights": class_weights, "label_smoothing": label_smoothing}
    soft = np.eye(5, dtype=np.float32)[labels]
    np.testing.assert_allclose(
        softmax_cross_entropy(logits, labels, **options),
        softmax_cross_entropy(logits, soft, **options),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(
        pixel_weights(labels, class_weights), pixel_weights(soft, class_weights)
    )


@given(logit_maps, label_maps, st.floats(-1000, 1000))
def test_logits_count_up_to_a_constant(logits, labels, shift):
    np.testing.assert_allclose(
        softmax_cross_entropy(logits + np.float32(shift), labels),
        softmax_cross_entropy(logits, labels),
        atol=1e-3,
    )


def test_soft_labels_have_a_gradient_too():
    logits, labels = _random()
    soft = np.eye(5, dtype=np.float32)[labels]
    gradient = jax.grad(lambda soft: softmax_cross_entropy(logits, soft).sum())(soft)
    np.testing.assert_allclose(gradient, -special.log_softmax(logits, axis=-1), rtol=1e-4)


def test_a_weighted_mean_is_the_mean_over_weighted_copies():
    """Weighing class c by k is seeing its pixels k times."""
    logits, labels = _random()
    class_weights = np.array([1, 2, 3, 0, 1], np.float32)
    total = softmax_cross_entropy(logits, labels, class_weights=class_weights).sum()
    copies = np.repeat(np.arange(12), class_weights[labels].astype(int).ravel())
    seen = softmax_cross_entropy(logits.reshape(12, 5)[copies], labels.ravel()[copies])
    mean = total / pixel_weights(labels, class_weights).sum()
    np.testing.assert_allclose(mean, seen.mean(), rtol=1e-5)


def test_a_class_ruled_out_by_its_logit_costs_the_others_nothing():
    logits = jnp.array([[0.0, 1.0, -jnp.inf], [0.0, 1.0, -jnp.inf]])
    labels = jnp.array([0, 1])
    loss, gradient = jax.value_and_grad(lambda x: softmax_cross_entropy(x, labels).sum())(logits)
    expected, expected_gradient = jax.value_and_grad(
        lambda x: softmax_cross_entropy(x, labels).sum()
    )(logits[:, :2])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, :2], expected_gradient, rtol=1e-6)
    np.testing.assert_array_equal(gradient[:, 2], [0, 0])


def test_sure_and_wrong_is_linear_in_the_logit():
    logits = jnp.array([[1e4, 0.0], [-1e4, 0.0]])
    np.testing.assert_array_equal(softmax_cross_entropy(logits, jnp.array([1, 1])), [1e4, 0])


def test_where_broadcasts_over_a_batch():
    logits, labels = _random()
    where = np.array([True, False, True, True])
    losses = softmax_cross_entropy(logits, labels, where=where)
    np.testing.assert_array_equal(losses, np.where(where, softmax_cross_entropy(logits, labels), 0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x, y: softmax_cross_entropy(x, y[:2]),
            ValueError,
            r"labels: expected integers \(3, 4\) or probabilities .*, got int32 \(2, 4\)",
        ),
        (lambda x, y: softmax_cross_entropy(x, y > 0), TypeError, "labels: expected integers"),
        (lambda x, y: softmax_cross_entropy(x, y * np.nan), TypeError, "integers, got float64"),
        (
            lambda x, y: softmax_cross_entropy(x, y, class_weights=np.ones(4)),
            ValueError,
            r"class_weights: expected .*got \(4,\)",
        ),
        (
            lambda x, y: softmax_cross_entropy(x, y, where=y >= np.zeros((2, 3, 4))),
            ValueError,
            r"where: expected .*got \(2, 3, 4\)",
        ),
        (
            lambda x, y: softmax_cross_entropy(x, y, where=y),
            TypeError,
            r"where: expected .*got int32",
        ),
        (lambda x, y: pixel_weights(y, np.ones((5, 1))), ValueError, "class_weights: expected"),
        (lambda x, y: pixel_weights(x, np.ones(4)), ValueError, "labels: expected"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(*_random())
