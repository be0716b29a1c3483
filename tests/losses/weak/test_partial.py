from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from segjax.losses import softmax_cross_entropy
from segjax.losses.weak import partial_cross_entropy, tag_loss

every_pooling = pytest.mark.parametrize("pooling", ["max", "mean", "noisy_or"])


def _random(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    return logits, rng.integers(3, size=(2, 4, 5), dtype=np.int32), rng.random((2, 4, 5)) < 0.8


def test_partial_cross_entropy_is_each_classs_own_mean():
    logits, labels, where = _random()
    losses = np.asarray(softmax_cross_entropy(logits, labels))
    by_class = jax.jit(partial_cross_entropy)(logits, labels, where=where)
    for b in range(2):
        for c in range(3):
            mean = losses[b][where[b] & (labels[b] == c)].mean()
            np.testing.assert_allclose(by_class[b, c], mean, rtol=1e-5)


def test_a_longer_scribble_weighs_no_more():
    """Twenty pixels of class 0 and one of class 1 pull equally hard, each class in all."""
    logits, labels = jnp.zeros((3, 7, 2)), jnp.zeros((3, 7), jnp.uint8).at[1, 3].set(1)
    gradient = jax.jit(jax.grad(lambda x: partial_cross_entropy(x, labels).sum()))(logits)
    one_pixel, all_pixels = gradient[1, 3, 1], gradient[..., 1].sum()
    np.testing.assert_allclose([one_pixel, all_pixels], [-0.5, 0], atol=1e-6)


def test_unlabelled_pixels_and_classes_cost_nothing():
    logits, labels, where = _random()
    where &= labels != 2
    spoilt = np.where(where[..., None], logits, np.nan)
    marked = np.where(where, labels, 255)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient_and_losses(logits):
        losses = partial_cross_entropy(logits, marked, where=where)
        return losses.sum(), losses

    gradient, by_class = gradient_and_losses(spoilt)
    np.testing.assert_array_equal(by_class[:, 2], 0)
    np.testing.assert_array_equal(gradient[~where], 0)


@every_pooling
def test_tag_loss_is_the_likelihood_of_presence_or_absence(pooling):
    logits, _, where = _random()
    tags = np.array([[True, False, True], [False, False, True]])
    probs = special.softmax(logits.astype(np.float64), axis=-1)
    pool = {
        "max": lambda p: p.max(axis=0),
        "mean": lambda p: p.mean(axis=0),
        "noisy_or": lambda p: 1 - np.prod(1 - p, axis=0),
    }[pooling]
    present = np.stack([pool(p[kept]) for p, kept in zip(probs, where, strict=True)])
    losses = jax.jit(partial(tag_loss, pooling=pooling))(logits, tags, where=where)
    np.testing.assert_allclose(losses, -np.log(np.where(tags, present, 1 - present)), rtol=1e-4)


@every_pooling
def test_an_absent_class_that_is_sure_everywhere_is_pushed_down(pooling):
    """Its probability rounds to 1: neither the loss, linear in the logit, nor its slope stops."""
    logits, tags = jnp.zeros((2, 2, 3)).at[..., 0].set(200.0), jnp.array([False, True, True])
    objective = lambda x: tag_loss(x, tags, pooling=pooling)[0]
    value, gradient = jax.jit(jax.value_and_grad(objective))(logits)
    pixels = 4 if pooling == "noisy_or" else 1
    np.testing.assert_allclose(value, pixels * (200 - np.log(2)), rtol=1e-5)
    np.testing.assert_allclose(gradient[..., 0].sum(), pixels, rtol=1e-5)


@every_pooling
def test_an_image_without_valid_pixels_costs_nothing(pooling):
    tags, nowhere = jnp.array([True, False]), jnp.zeros((2, 2), bool)
    objective = lambda x: tag_loss(x, tags, pooling=pooling, where=nowhere).sum()
    value, gradient = jax.jit(jax.value_and_grad(objective))(jnp.full((2, 2, 2), jnp.nan))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, y: partial_cross_entropy(x[0, 0], y), ValueError, "logits: expected"),
        (lambda x, y: partial_cross_entropy(x, y[0]), ValueError, "labels: expected shape"),
        (lambda x, y: partial_cross_entropy(x, y * 1.0), TypeError, "labels: expected integers"),
        (lambda x, y: partial_cross_entropy(x, x), ValueError, "labels: expected shape"),
        (lambda x, y: tag_loss(x[..., :1], y > 0), ValueError, "logits: expected"),
        (lambda x, y: tag_loss(x, np.ones((2, 3))), TypeError, r"tags: expected .*got float64"),
        (lambda x, y: tag_loss(x, np.ones(3, bool)), ValueError, r"tags: expected .*got \(3,\)"),
        (
            lambda x, y: tag_loss(x, np.ones((2, 3), bool), pooling="sum"),
            ValueError,
            r"pooling: expected .*got 'sum'",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(*_random()[:2])
