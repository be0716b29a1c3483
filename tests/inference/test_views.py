from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.inference import average_over_views, sliding_window
from segjax.ops import resize

IMAGES = jax.random.normal(jax.random.key(0), (2, 10, 14, 3))


def lopsided(images):
    """Depends on what stands to the left of and above a pixel, so no view is like another."""
    return jax.nn.softmax(jnp.cumsum(images, axis=2) + jnp.cumsum(images, axis=1))


def mirror(images):
    return images[:, :, ::-1]


def test_one_unmirrored_view_at_scale_1_is_the_prediction():
    probs = average_over_views(lopsided, IMAGES, scales=(1.0,), flip=False)
    np.testing.assert_allclose(probs, lopsided(IMAGES), rtol=1e-6)


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.75)])
def test_mirrored_images_give_the_mirrored_result(scales):
    probs = average_over_views(lopsided, IMAGES, scales=scales)
    mirrored = average_over_views(lopsided, mirror(IMAGES), scales=scales)
    np.testing.assert_allclose(mirror(mirrored), probs, atol=1e-5)
    assert not np.allclose(mirror(lopsided(mirror(IMAGES))), lopsided(IMAGES), atol=1e-2)


def test_it_is_the_mean_over_the_views():
    small = lopsided(resize(IMAGES, (5, 7)))
    small_mirrored = mirror(lopsided(mirror(resize(IMAGES, (5, 7)))))
    views = [lopsided(IMAGES), mirror(lopsided(mirror(IMAGES)))]
    views += [resize(small, (10, 14)), resize(small_mirrored, (10, 14))]
    probs = average_over_views(lopsided, IMAGES, scales=(1.0, 0.5))
    np.testing.assert_allclose(probs, np.mean(views, axis=0), rtol=1e-5)


def test_a_model_in_bfloat16_is_averaged_in_float32():
    def low(images):
        return lopsided(images).astype(jnp.bfloat16)

    probs = average_over_views(low, IMAGES, scales=(0.6, 1.0))
    exact = average_over_views(lambda x: low(x).astype(jnp.float32), IMAGES, scales=(0.6, 1.0))
    assert probs.dtype == jnp.float32
    np.testing.assert_allclose(probs, exact, rtol=1e-6)


def test_probabilities_sum_to_1_even_where_a_view_is_a_single_pixel():
    probs = average_over_views(lopsided, IMAGES, scales=(0.01, 1.3))
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)


def test_views_compose_with_windows_under_jit_and_grad():
    def windowed(images):
        return sliding_window(jax.nn.softmax, images, window=(8, 8))

    @partial(jax.jit, static_argnums=0)
    def probs_and_gradient(predict, images):
        probs, pull = jax.vjp(lambda x: average_over_views(predict, x, scales=(0.5, 1.0)), images)
        return probs, pull(probs)[0]

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        probs_and_gradient(windowed, IMAGES),
        probs_and_gradient(jax.nn.softmax, IMAGES),
    )


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_scales_that_are_none_or_not_positive_are_named(scales):
    with pytest.raises(ValueError, match="scales: expected"):
        average_over_views(lopsided, IMAGES, scales=scales)


@pytest.mark.usefixtures("unchecked_shapes")
def test_images_without_a_batch_axis_are_named():
    with pytest.raises(ValueError, match=r"images: expected .* got \(10, 14, 3\)"):
        average_over_views(lopsided, IMAGES[0])
