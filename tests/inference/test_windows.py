import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax.inference import sliding_window

WEIGHTS = jax.random.normal(jax.random.key(1), (3, 4))


def pixelwise(images):
    return jax.nn.softmax(images @ WEIGHTS)


def leftwards(images):
    """Depends on what the window holds to the left of a pixel, so no two windows agree."""
    return jax.nn.softmax(jnp.cumsum(images @ WEIGHTS, axis=2))


def images_of(height, width, batch=1):
    return jax.random.normal(jax.random.key(height * 100 + width), (batch, height, width, 3))


@pytest.mark.slow
@settings(max_examples=8)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    window=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    overlap=st.floats(0, 0.8),
    sigma=st.floats(0.01, 1) | st.just(math.inf),
)
def test_a_pixelwise_prediction_is_that_of_the_whole_image(size, window, overlap, sigma):
    images = images_of(*size)
    run = jax.jit(
        lambda x: sliding_window(pixelwise, x, window=window, overlap=overlap, sigma=sigma)
    )
    np.testing.assert_allclose(run(images), pixelwise(images), rtol=2e-5, atol=1e-7)


def test_one_window_of_the_images_size_is_the_prediction_itself():
    images = images_of(12, 9, batch=2)
    probs = sliding_window(leftwards, images, window=(12, 9))
    np.testing.assert_allclose(probs, leftwards(images), rtol=1e-5)


def test_an_image_smaller_than_the_window_is_continued_by_its_border():
    images = images_of(3, 4)
    probs = sliding_window(lambda x: x - x.mean((1, 2), keepdims=True), images, window=(5, 8))
    continued = np.pad(images, ((0, 0), (0, 2), (0, 4), (0, 0)), mode="edge")
    np.testing.assert_allclose(probs, images - continued.mean((1, 2)), atol=1e-6)


def test_windows_blend_by_their_gaussians():
    # Each window says how bright it is on average: two of them, at columns 0..3 and 2..5.
    images = jnp.arange(6.0).reshape(1, 1, 6, 1)

    def brightness(x):
        return jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)

    def gaussian(column, centre):
        return math.exp(-0.5 * ((column - centre) / (0.25 * 4)) ** 2)

    left, right = 1.5, 3.5  # mean brightness, and by coincidence the centre, of each
    expected = [left, left]
    for column in (2, 3):
        a, b = gaussian(column, 1.5), gaussian(column, 3.5)
        expected.append((a * left + b * right) / (a + b))
    expected += [right, right]
    blended = sliding_window(brightness, images, window=(1, 4), overlap=0.5, sigma=0.25)
    np.testing.assert_allclose(blended[0, 0, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_overlap_as_much_as_asked_and_reach_the_border(overlap):
    size, side = 37, 10
    images = jnp.arange(float(size)).reshape(1, 1, size, 1)
    starts = []

    def predict(x):
        jax.debug.callback(lambda first: starts.append(int(first)), x[0, 0, 0, 0])
        return x

    sliding_window(predict, images, window=(1, side), overlap=overlap)
    jax.effects_barrier()
    stride = side - round(overlap * side)
    assert (min(starts), max(starts)) == (0, size - side)
    assert np.diff(sorted(starts)).max() <= stride
    assert len(starts) == math.ceil((size - side) / stride) + 1


def test_a_model_in_bfloat16_is_averaged_in_float32():
    images = images_of(21, 17, batch=2)

    def low(x):
        return leftwards(x).astype(jnp.bfloat16)

    probs = sliding_window(low, images, window=(8, 6))
    assert probs.shape == (2, 21, 17, 4)
    assert probs.dtype == jnp.float32
    exact = sliding_window(lambda x: low(x).astype(jnp.float32), images, window=(8, 6))
    np.testing.assert_allclose(probs, exact, rtol=1e-6)


def test_probabilities_sum_to_1():
    probs = sliding_window(leftwards, images_of(23, 31), window=(7, 8), overlap=0.6, sigma=0.02)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)


def test_the_gradient_of_a_pixelwise_prediction_is_that_of_the_whole_image():
    images = images_of(11, 13)

    def whole(weights):
        return (jax.nn.softmax(images @ weights)[..., 0] ** 2).sum()

    def windowed(weights):
        probs = sliding_window(lambda x: jax.nn.softmax(x @ weights), images, window=(5, 4))
        return (probs[..., 0] ** 2).sum()

    expected = jax.grad(whole)(WEIGHTS)
    np.testing.assert_allclose(jax.jit(jax.grad(windowed))(WEIGHTS), expected, rtol=1e-4, atol=1e-5)


def test_the_program_does_not_grow_with_the_number_of_windows():
    def run(x):
        return sliding_window(pixelwise, x, window=(4, 4))

    few, many = (str(jax.make_jaxpr(run)(images_of(side, side))) for side in (8, 40))
    assert few.count("dot_general") == many.count("dot_general")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (0, 4)}, r"window: expected .* got \(0, 4\)"),
        ({"window": (4, 4), "overlap": 1.0}, r"overlap: expected .* got 1\.0"),
        ({"window": (4, 4), "sigma": 0.0}, r"sigma: expected .* got 0\.0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sliding_window(pixelwise, images_of(8, 8), **options)


def test_a_model_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match=r"predict: expected .* got \(1, 2, 2, 3\)"):
        sliding_window(lambda x: x[:, ::2, ::2], images_of(8, 8), window=(4, 4))
    with pytest.raises(ValueError, match=r"images: expected .* got \(1, 0, 8, 3\)"):
        sliding_window(pixelwise, images_of(8, 8)[:, :0], window=(4, 4))
