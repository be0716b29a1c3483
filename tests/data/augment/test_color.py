import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from segjax.data.augment import as_float, color_jitter, gaussian_blur, random_blur
from segjax.data.augment.color import _turn_hue

KEYS = jax.random.split(jax.random.key(0), 64)
IMAGE = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.6, (6, 7, 3)), jnp.float32)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def jitter(image, **options):
    return np.asarray(jax.jit(jax.vmap(lambda key: color_jitter(key, image, **options)))(KEYS))


def test_as_float():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_allclose(as_float(levels), levels / 255, rtol=1e-6)
    half = jnp.ones((2, 2, 3), jnp.bfloat16)
    assert as_float(half).dtype == jnp.bfloat16


@pytest.mark.usefixtures("unchecked_shapes")
def test_as_float_takes_no_other_integers():
    with pytest.raises(TypeError, match="int32"):
        as_float(np.zeros((2, 2, 3), np.int32))


def test_brightness_is_one_factor_for_all_pixels():
    factors = jitter(IMAGE, brightness=0.5) / IMAGE
    assert np.all(np.ptp(factors, axis=(1, 2, 3)) < 1e-5)
    factors = factors[:, 0, 0, 0]
    assert 0.5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5


def test_contrast_keeps_the_mean_luma():
    changed = jitter(IMAGE, contrast=0.5)
    np.testing.assert_allclose((changed @ LUMA).mean(axis=(1, 2)), (IMAGE @ LUMA).mean(), rtol=1e-5)
    spread = changed.std(axis=(1, 2, 3)) / np.std(IMAGE)
    assert spread.min() < 0.6
    assert spread.max() > 1.4


def test_saturation_keeps_every_luma():
    changed = jitter(IMAGE, saturation=0.9)
    np.testing.assert_allclose(changed @ LUMA, np.tile(IMAGE @ LUMA, (64, 1, 1)), rtol=1e-5)
    chroma = np.ptp(changed, axis=-1).mean(axis=(1, 2)) / np.ptp(IMAGE, axis=-1).mean()
    assert chroma.min() < 0.2
    assert chroma.max() > 1.8


def test_hue_keeps_greys_and_turns_the_rest():
    grey = jnp.broadcast_to(IMAGE[..., :1], IMAGE.shape)
    np.testing.assert_allclose(jitter(grey, hue=0.5), np.tile(grey, (64, 1, 1, 1)), rtol=1e-5)
    changed = jitter(IMAGE, hue=0.5)
    np.testing.assert_allclose(changed.mean(-1), np.tile(IMAGE.mean(-1), (64, 1, 1)), rtol=1e-5)
    assert np.abs(changed - IMAGE).max(axis=(1, 2, 3)).max() > 0.1


def test_a_third_of_the_circle_takes_red_to_green():
    turned = _turn_hue(IMAGE, jnp.array(2 * np.pi / 3))
    np.testing.assert_allclose(turned, jnp.roll(IMAGE, 1, axis=-1), atol=1e-6)


def test_nothing_asked_is_nothing_changed():
    np.testing.assert_array_equal(color_jitter(KEYS[0], IMAGE), IMAGE)
    single = IMAGE[..., :1]
    np.testing.assert_array_equal(color_jitter(KEYS[0], single, saturation=1.0, hue=0.5), single)


@given(
    options=st.fixed_dictionaries(
        {name: st.floats(0, 1) for name in ("brightness", "contrast", "saturation")}
        | {"hue": st.floats(0, 0.5)}
    ),
    channels=st.sampled_from([1, 3, 4]),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_an_image_stays_an_image(options, channels, dtype):
    image = jnp.linspace(0, 1, 6 * channels, dtype=dtype).reshape(2, 3, channels)
    changed = color_jitter(KEYS[0], image, **options)
    assert changed.dtype == dtype
    assert changed.shape == image.shape
    assert np.all((changed >= 0) & (changed <= 1))


@pytest.mark.parametrize("option", ["brightness", "contrast", "saturation", "hue"])
def test_options_out_of_range_are_named(option):
    for value in (-0.1, 1.1):
        with pytest.raises(ValueError, match=option):
            color_jitter(KEYS[0], IMAGE, **{option: value})


@given(sigma=st.floats(0.3, 2.5))
def test_blur_is_scipys_away_from_the_border(sigma):
    image = np.random.default_rng(1).random((40, 44, 2)).astype(np.float32)
    peer = scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=6)
    inner = np.s_[15:-15, 15:-15]
    np.testing.assert_allclose(gaussian_blur(image, sigma)[inner], peer[inner], atol=1e-5)


@given(sigma=st.floats(0, 50))
def test_blur_keeps_a_constant_and_the_range(sigma):
    np.testing.assert_allclose(gaussian_blur(jnp.full((5, 8, 1), 0.7), sigma), 0.7, rtol=1e-6)
    blurred = gaussian_blur(IMAGE, sigma)
    assert np.all((blurred >= IMAGE.min() - 1e-6) & (blurred <= IMAGE.max() + 1e-6))


def test_no_blur_is_the_identity_with_a_finite_gradient():
    np.testing.assert_array_equal(gaussian_blur(IMAGE, 0.0), IMAGE)
    gradient = jax.jit(jax.grad(lambda sigma: gaussian_blur(IMAGE, sigma).sum()))(0.0)
    assert np.isfinite(gradient)
    assert gaussian_blur(IMAGE.astype(jnp.bfloat16), 1.0).dtype == jnp.bfloat16


def test_random_blur_is_as_wide_as_asked_at_most():
    impulse = jnp.zeros((41, 41, 1)).at[20, 20].set(1.0)
    blur = jax.jit(jax.vmap(lambda key: random_blur(key, impulse, sigma=3.0)))
    blurred = blur(KEYS)[..., 0]
    variance = np.sum(blurred.sum(axis=1) * (np.arange(41) - 20.0) ** 2, axis=-1)
    assert np.sqrt(variance.max()) < 3.01
    assert np.sqrt(variance.max()) > 2.7
    assert np.sqrt(variance.min()) < 0.5
    with pytest.raises(ValueError, match="sigma"):
        random_blur(KEYS[0], impulse, sigma=-1.0)
