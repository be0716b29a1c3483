from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from segjax.losses.weak import (
    log_sum_exp_pooling,
    log_sum_likelihood,
    max_log_likelihood,
    mean_log_likelihood,
    noisy_or_log_likelihood,
    point_mil_loss,
)

value_and_grad = jax.jit(jax.value_and_grad(noisy_or_log_likelihood))

POOLINGS = (
    noisy_or_log_likelihood,
    log_sum_likelihood,
    max_log_likelihood,
    mean_log_likelihood,
    log_sum_exp_pooling,
)
bags = hnp.arrays(np.float32, 6, elements=st.floats(-80, -(2.0**-20), width=32))
masks = hnp.arrays(bool, 6).filter(np.any)
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


def _exact_noisy_or(log_probs):
    """log(1 − Π(1 − p)) and its gradient, to sixty digits."""
    with localcontext() as context:
        context.prec = 60
        probs = [Decimal(float(x)).exp() for x in log_probs]
        misses = Decimal(1)
        for p in probs:
            misses *= 1 - p
        gradient = [p * misses / (1 - p) / (1 - misses) for p in probs]
        return float((1 - misses).ln()), [float(g) for g in gradient]


@given(bags)
def test_noisy_or_is_one_minus_the_product_of_misses(log_probs):
    value, gradient = value_and_grad(log_probs)
    expected, expected_gradient = _exact_noisy_or(log_probs)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("size", [1, 300, 100_000])
@pytest.mark.parametrize("log_prob", [np.log(1e-30), np.log(1e-5), np.log(0.3), np.log1p(-1e-7)])
def test_noisy_or_of_equal_pixels_has_its_closed_form(log_prob, size):
    """With λ = −n log(1 − p), in float64: log(1 − e^−λ), and a pixel's part of n."""
    bag = np.full(size, log_prob, np.float32)
    log_p = np.float64(bag[0])
    rate = -np.log(-np.expm1(log_p)) if log_p > -0.7 else -np.log1p(-np.exp(log_p))
    expected = np.log(-np.expm1(-size * rate))
    slope = size * np.exp(log_p) / -np.expm1(log_p) / np.expm1(min(size * rate, 700))
    value, gradient = value_and_grad(bag)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(
        np.asarray(gradient).sum(dtype=np.float64), slope, rtol=1e-4, atol=1e-30
    )


bounds = [jax.jit(f) for f in (max_log_likelihood, noisy_or_log_likelihood, log_sum_likelihood)]


@given(bags)
def test_log_sum_bounds_noisy_or_from_above_and_the_maximum_from_below(log_probs):
    least, exact, most = (float(bound(log_probs)) for bound in bounds)
    slack = 1e-5 * abs(exact)
    assert least - slack <= exact <= most + slack


@given(hnp.arrays(np.float64, 6, elements=st.floats(-60, 0)), st.floats(3, 12))
def test_log_sum_agrees_with_noisy_or_to_first_order(shape, decades):
    """log Σp − log(1 − Π(1 − p)) is between 0 and Σp."""
    with jax.enable_x64(True):
        log_probs = shape - decades * np.log(10)
        excess = float(log_sum_likelihood(log_probs) - noisy_or_log_likelihood(log_probs))
    total = np.exp(log_probs).sum()
    assert -1e-13 <= excess <= total + 1e-13


@given(bags, masks)
def test_poolings_are_scipys_logsumexp_and_numpys_maximum(log_probs, where):
    kept = log_probs[where].astype(np.float64)
    log_mean = special.logsumexp(kept) - np.log(len(kept))
    power_mean = (special.logsumexp(3 * kept) - np.log(len(kept))) / 3
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(
        log_sum_likelihood(log_probs, where=where), special.logsumexp(kept), **close
    )
    np.testing.assert_array_equal(max_log_likelihood(log_probs, where=where), kept.max())
    np.testing.assert_allclose(mean_log_likelihood(log_probs, where=where), log_mean, **close)
    np.testing.assert_allclose(
        log_sum_exp_pooling(log_probs, sharpness=3.0, where=where), power_mean, **close
    )


@given(bags)
def test_sharpness_leads_from_the_mean_to_the_maximum(log_probs):
    pooled = [log_sum_exp_pooling(log_probs, sharpness=r) for r in (1e-3, 1.0, 10.0, 1e3)]
    assert np.all(np.diff(pooled) >= -1e-4 * np.abs(pooled[0]))
    np.testing.assert_allclose(pooled[1], mean_log_likelihood(log_probs), rtol=1e-6)
    np.testing.assert_allclose(pooled[-1], log_probs.max(), atol=np.log(6) / 1e3 + 1e-4)


@every_pooling
def test_axis_and_where_are_as_in_a_sum(pooling):
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.uniform(size=(3, 4, 2))).astype(np.float32)
    where = rng.random((3, 4, 1)) < 0.6
    pooled = pooling(log_probs, axis=(0, 1), where=where)
    assert pooled.shape == (2,)
    for c in range(2):
        kept = log_probs[where[..., 0], c]
        np.testing.assert_allclose(pooled[c], pooling(kept), rtol=1e-5)


@every_pooling
def test_an_empty_bag_says_nothing(pooling):
    bag, nobody = jnp.array([-1.0, jnp.nan]), jnp.zeros(2, bool)
    value, gradient = jax.value_and_grad(lambda x: pooling(x, where=nobody))(bag)
    assert value == 0
    np.testing.assert_array_equal(gradient, [0, 0])


@every_pooling
def test_a_bag_of_probability_zero_has_log_likelihood_minus_infinity(pooling):
    value, gradient = jax.value_and_grad(pooling)(jnp.full(3, -jnp.inf))
    assert value == -np.inf
    assert np.isfinite(gradient).all()


@every_pooling
def test_one_pixel_is_its_own_bag(pooling):
    for log_p in (-1e4, -50.0, -1.0, -1e-6):
        value, gradient = jax.value_and_grad(pooling)(jnp.array([log_p]))
        np.testing.assert_allclose(value, log_p, rtol=1e-5)
        np.testing.assert_allclose(gradient, [1], rtol=1e-5)


def test_a_sure_pixel_leaves_nothing_to_the_others():
    value, gradient = value_and_grad(jnp.array([0.0, -1.0, -30.0]))
    assert value == 0
    np.testing.assert_array_equal(gradient[1:], 0)


@pytest.mark.parametrize("others", [[0.5, 0.25], [0.0], [], [0.5, 1.0]])
def test_the_gradient_to_a_sure_pixel_is_that_of_an_almost_sure_one(others):
    """`Π_j (1 − p_j)` of the others: what only this pixel can say."""
    gradient = jax.grad(noisy_or_log_likelihood)
    expected = np.prod(1 - np.array(others))
    for log_prob, tolerance in [(0.0, 1e-6), (-1e-6, 1e-5)]:
        log_probs = jnp.array([log_prob, *np.log(np.maximum(others, 1e-30))], jnp.float32)
        np.testing.assert_allclose(gradient(log_probs)[0], expected, atol=tolerance)


def test_second_derivatives_are_the_difference_of_the_first():
    with jax.enable_x64(True):
        log_probs, step = jnp.array([-0.2, -1.0, -25.0]), 1e-5
        hessian = jax.hessian(noisy_or_log_likelihood)(log_probs)
        slope = jax.grad(noisy_or_log_likelihood)
        for i, direction in enumerate(np.eye(3) * step):
            difference = (slope(log_probs + direction) - slope(log_probs - direction)) / (2 * step)
            np.testing.assert_allclose(hessian[i], difference, atol=1e-8)


# Points


def _image(seed=0, shape=(6, 7, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _members(point, radius, height, width):
    """The bag, by its definition: over the whole image."""
    y, x = np.mgrid[:height, :width] + 0.5
    near = (x - point[0]) ** 2 + (y - point[1]) ** 2 <= radius**2
    home = (np.floor(point[0]) == x - 0.5) & (np.floor(point[1]) == y - 0.5)
    return near | home


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.2, 2.0, 30.0])
def test_a_bag_is_all_pixels_within_the_radius(radius):
    logits = _image()
    points = np.array([[3.5, 2.5], [0.2, 5.9], [6.0, 3.0], [1.8, 0.3]], np.float32)
    labels = np.array([2, 0, 1, 1], np.int32)
    log_probs = special.log_softmax(logits.astype(np.float64), axis=-1)
    expected = [
        -special.logsumexp(log_probs[_members(point, radius, 6, 7), label])
        for point, label in zip(points, labels, strict=True)
    ]
    losses = point_mil_loss(logits, points, labels, radius=radius, aggregate="log_sum")
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("aggregate", ["noisy_or", "log_sum", "max", "mean", "log_sum_exp"])
def test_at_radius_zero_it_is_the_cross_entropy_of_the_points_pixels(aggregate):
    logits = _image()
    points, labels = np.array([[0.0, 0.0], [6.99, 5.0]], np.float32), np.array([1, 2], np.uint8)
    losses = point_mil_loss(logits, points, labels, radius=0.0, aggregate=aggregate)
    log_probs = special.log_softmax(logits, axis=-1)
    np.testing.assert_allclose(losses, [-log_probs[0, 0, 1], -log_probs[5, 6, 2]], rtol=1e-4)


def test_a_larger_radius_never_costs_more():
    logits, point, label = _image(), np.array([[3.1, 2.7]], np.float32), np.array([0])
    losses = [
        float(point_mil_loss(logits, point, label, radius=r)[0]) for r in (0.0, 1.0, 2.0, 4.0)
    ]
    assert losses == sorted(losses, reverse=True)


def test_gradient_stays_in_the_bag_and_raises_its_class():
    logits, point = _image(), np.array([[2.5, 3.5]], np.float32)
    gradient = jax.grad(lambda x: point_mil_loss(x, point, jnp.array([1]), radius=1.5).sum())(
        logits
    )
    members = _members(point[0], 1.5, 6, 7)
    assert (gradient[members][:, 1] < 0).all()
    np.testing.assert_array_equal(gradient[~members], 0)


def test_padded_points_and_void_pixels_may_hold_anything():
    logits, points = _image(), np.array([[3.5, 2.5], [0.5, 0.5]], np.float32)
    valid = np.ones((6, 7), bool)
    valid[2, 3:5] = False
    void = np.where(valid[..., None], logits, np.nan)

    def total(logits, points, labels, **masks):
        losses = point_mil_loss(logits, points, labels, radius=1.0, **masks)
        return losses.sum(), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(
        void,
        np.array([[3.5, 2.5], [np.nan, 1e9]], np.float32),
        np.array([1, 255]),
        where=np.array([True, False]),
        valid_pixels=valid,
    )
    kept = _members(points[0], 1.0, 6, 7) & valid
    log_probs = special.log_softmax(logits, axis=-1)[kept, 1]
    np.testing.assert_allclose(losses, [-noisy_or_log_likelihood(log_probs), 0], rtol=1e-5)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~kept], 0)


def test_a_point_outside_has_the_pixels_it_reaches_and_costs_nothing_beyond():
    logits, labels = _image(), np.array([1, 1])
    points = np.array([[-0.5, 2.5], [-9.0, 2.5]], np.float32)
    losses = point_mil_loss(logits, points, labels, radius=1.0)
    log_probs = special.log_softmax(logits, axis=-1)
    np.testing.assert_allclose(losses, [-log_probs[2, 0, 1], 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, p, y: point_mil_loss(x[0], p, y, radius=1), r"logits: expected .*got \(7, 3\)"),
        (
            lambda x, p, y: point_mil_loss(x, p[:1], y, radius=1),
            "points, labels: expected",
        ),
        (lambda x, p, y: point_mil_loss(x, p, y, radius=-1), "radius: expected"),
        (
            lambda x, p, y: point_mil_loss(x, p, y, radius=1, aggregate="or"),
            r"aggregate: expected .*got 'or'",
        ),
        (
            lambda x, p, y: point_mil_loss(x, p, y, radius=1, where=np.ones(3, bool)),
            r"where: expected .*got \(3,\)",
        ),
        (lambda x, p, y: log_sum_exp_pooling(x, sharpness=0), "sharpness: expected"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(_image(), np.ones((2, 2), np.float32), np.array([0, 1]))
