import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from segjax.ops import resize, sample

SMOOTH = ("bilinear", "bicubic")
OPTIONS = [
    *({"method": method} for method in ("nearest", "nearest-exact", "area")),
    *({"method": method, "align_corners": align} for method in SMOOTH for align in (False, True)),
    *({"method": method, "antialias": True} for method in SMOOTH),
]


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _centres(height, width):
    """(x, y) of every pixel's centre, `[h, w, 2]`."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.stack([columns, rows], axis=-1).astype(np.float32)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_resize_keeps_a_constant(options):
    resized = resize(np.full((4, 9, 1), 3, np.float32), (7, 5), **options)
    np.testing.assert_allclose(resized, 3, rtol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_resize_to_its_own_shape_is_the_image_itself(options):
    image = _random(3, 5, 2)
    jaxpr = jax.make_jaxpr(lambda image: resize(image, (3, 5), **options))(image)
    assert not jaxpr.eqns
    np.testing.assert_array_equal(resize(image, (3, 5), **options), image)


@pytest.mark.parametrize("method", SMOOTH)
def test_resize_samples_the_picture_where_the_new_pixels_lie(method):
    image = _random(5, 8, 3)
    new_pixels = _centres(7, 4) * np.array([8 / 4, 5 / 7], np.float32)
    expected = sample(image, new_pixels, method=method, padding="border")
    np.testing.assert_allclose(resize(image, (7, 4), method=method), expected, atol=1e-5)


def test_resize_with_align_corners_keeps_a_ramp_from_corner_to_corner():
    ramp = np.linspace(0, 1, 4, dtype=np.float32)[:, None, None]
    resized = resize(ramp, (9, 1), align_corners=True)[:, 0, 0]
    np.testing.assert_allclose(resized, np.linspace(0, 1, 9), atol=1e-6)


def test_resize_without_antialias_skips_pixels_and_with_it_averages_them():
    comb = np.zeros((16, 1, 1), np.float32)
    comb[::4] = 1  # no new pixel lies beside a tooth
    np.testing.assert_array_equal(resize(comb, (4, 1)), np.zeros((4, 1, 1)))
    assert (np.asarray(resize(comb, (4, 1), antialias=True)) > 0.1).all()


def test_resize_nearest_takes_any_dtype_and_repeats_pixels_at_whole_factors():
    for labels in (np.arange(6, dtype=np.uint8), np.array([True, False])):
        resized = resize(labels[:, None, None], (3 * len(labels), 2), method="nearest")
        assert resized.dtype == labels.dtype
        np.testing.assert_array_equal(resized[..., 0], np.repeat(labels, 3)[:, None] * np.ones(2))


@pytest.mark.parametrize(("size", "new_size"), [(3, 100), (100, 3), (40, 41), (8, 32), (32, 8)])
def test_resize_gathers_slices_and_multiplies_alike(size, new_size):
    """Few pixels under the kernel or in its transpose, or very many, or at a stride: one map."""
    with jax.enable_x64(True):
        column = jnp.asarray(_random(size, 1, 1), jnp.float64)
        cotangent = jnp.asarray(_random(new_size, 1, 1, seed=1), jnp.float64)
        for options in ({}, {"antialias": True}):
            new, vjp = jax.vjp(lambda image, o=options: resize(image, (new_size, 1), **o), column)
            (pulled,) = vjp(cotangent)
            np.testing.assert_allclose(jnp.vdot(cotangent, new), jnp.vdot(pulled, column))


@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from(OPTIONS))
def test_resize_treats_all_axes_alike(size, new_size, options):
    column = _random(size, 1, 2)
    down = resize(column, (new_size, 1), **options)
    right = resize(column.swapaxes(0, 1), (1, new_size), **options)
    np.testing.assert_allclose(down, right.swapaxes(0, 1), atol=1e-6)


@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from(OPTIONS[2:]))
def test_resize_commutes_with_mirroring(size, new_size, options):
    # Nearest has ties; under align_corners a lone new pixel is the first one, not the middle.
    assume(not (options.get("align_corners") and new_size == 1))
    row = _random(1, size, 2)
    mirrored = resize(row[:, ::-1], (1, new_size), **options)
    np.testing.assert_allclose(mirrored, resize(row, (1, new_size), **options)[:, ::-1], atol=1e-5)


def test_resize_is_linear_so_its_derivatives_are_itself():
    image, tangent = _random(4, 5, 1), _random(4, 5, 1, seed=1)
    _, pushed = jax.jvp(lambda image: resize(image, (7, 3)), (image,), (tangent,))
    np.testing.assert_array_equal(pushed, resize(tangent, (7, 3)))
    hessian = jax.hessian(lambda image: jnp.sum(resize(image, (7, 3)) ** 2))(image)
    np.testing.assert_allclose(
        jnp.vdot(tangent, jnp.tensordot(hessian, tangent, 3)),
        2 * jnp.sum(pushed**2),
        rtol=1e-4,
    )


def test_resize_of_nan_spoils_only_the_pixels_that_see_it():
    image = np.zeros((8, 1, 1), np.float32)
    image[2] = np.nan
    touched = np.isnan(resize(image, (16, 1))[:, 0, 0])
    np.testing.assert_array_equal(np.flatnonzero(touched), [3, 4, 5, 6])


def test_sample_at_the_centres_is_the_image():
    image = _random(4, 6, 2)
    for method in ("nearest", *SMOOTH):
        sampled = sample(image, _centres(4, 6), method=method)
        np.testing.assert_allclose(sampled, image, atol=1e-6)


@given(st.floats(0.5, 5.5, width=32), st.floats(0.5, 3.5, width=32))
def test_sample_has_linear_precision(x, y):
    """A plane is found again between the centres, and so are its slopes."""
    plane = _centres(4, 6) @ np.array([[2.0], [-3.0]], np.float32)
    point = jnp.array([x, y])
    np.testing.assert_allclose(sample(plane, point)[0], 2 * x - 3 * y, atol=1e-4)
    if not (2 * x).is_integer() and not (2 * y).is_integer():
        slopes = jax.grad(lambda point: sample(plane, point)[0])(point)
        np.testing.assert_allclose(slopes, [2, -3], atol=1e-4)


def test_sample_nearest_is_the_pixel_that_contains_the_point():
    labels = np.arange(12, dtype=np.int32).reshape(3, 4, 1)
    points = np.array([[0, 0], [0.99, 0.99], [1, 0.5], [3.99, 2.99], [4, 2], [-0.01, 1]])
    found = sample(labels, jnp.asarray(points, jnp.float32), method="nearest")[:, 0]
    np.testing.assert_array_equal(found, [0, 0, 1, 11, 0, 0])


def test_sample_outside_is_zero_or_the_border():
    image = _random(2, 2, 1)
    outside = jnp.array([[-1.5, 0.5], [0.5, 3.5], [9e9, -9e9], [jnp.inf, 0.5]])
    border = image[[0, 1, 0, 0], [0, 0, 1, 1]]
    np.testing.assert_array_equal(sample(image, outside), np.zeros((4, 1)))
    np.testing.assert_allclose(sample(image, outside, padding="border"), border, atol=1e-6)


@pytest.mark.parametrize("method", ["nearest", *SMOOTH])
def test_sample_by_reflection_is_of_the_picture_mirrored_at_its_edges(method):
    image = _random(3, 4, 2)
    mirrored = np.pad(image, ((9, 9), (12, 12), (0, 0)), "symmetric")
    points = np.random.default_rng(1).uniform([-9, -6], [13, 9], (50, 2)).astype(np.float32)
    reflected = sample(image, points, method=method, padding="reflection")
    expected = sample(mirrored, points + np.float32([12, 9]), method=method)
    np.testing.assert_allclose(reflected, expected, atol=1e-5)


def test_sample_has_finite_gradients_however_far_outside():
    image = _random(3, 3, 1)
    points = jnp.array([[1e30, 1.0], [jnp.inf, -jnp.inf], [-1e9, 1e9]])
    for method in SMOOTH:
        for padding in ("zeros", "border", "reflection"):
            gradients = jax.grad(
                lambda image, points, m=method, p=padding: jnp.sum(
                    sample(image, points, method=m, padding=p)
                ),
                argnums=(0, 1),
            )(image, points)
            assert all(np.isfinite(gradient).all() for gradient in gradients)
            np.testing.assert_array_equal(gradients[1][1:], np.zeros((2, 2)))


def test_sample_of_nan_outside_the_taps_does_not_matter():
    image = np.array([[1.0, 2.0, np.nan]], np.float32)[..., None]
    np.testing.assert_allclose(sample(image, jnp.array([[1.0, 0.5], [-5.0, 0.5]]))[:, 0], [1.5, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: resize(np.zeros((2, 2)), (4, 4)), ValueError, r"image: expected .*got \(2, 2\)"),
        (
            lambda: resize(np.zeros((0, 2, 1)), (4, 4)),
            ValueError,
            r"image: expected .*got \(0, 2, 1\)",
        ),
        (
            lambda: resize(np.zeros((2, 2, 1)), (4, 0)),
            ValueError,
            r"shape: expected .*got \(4, 0\)",
        ),
        (
            lambda: resize(np.zeros((2, 2, 1)), (4.0, 4)),
            ValueError,
            r"shape: expected .*got \(4\.0, 4\)",
        ),
        (lambda: resize(np.zeros((2, 2, 1)), (4,)), ValueError, r"shape: expected .*got \(4,\)"),
        (
            lambda: resize(np.zeros((2, 2, 1)), (4, 4), method="cubic"),
            ValueError,
            "method: expected",
        ),
        (
            lambda: resize(np.zeros((2, 2, 1), int), (4, 4)),
            TypeError,
            r"image: expected .*got int64",
        ),
        (
            lambda: resize(np.zeros((2, 2, 1)), (4, 4), method="nearest", antialias=True),
            ValueError,
            "antialias",
        ),
        (lambda: sample(np.zeros((1, 2, 2, 1)), np.zeros(2)), ValueError, "features: expected"),
        (
            lambda: sample(np.zeros((2, 2, 1), bool), np.zeros(2)),
            TypeError,
            r"features: expected .*got bool",
        ),
        (lambda: sample(np.zeros((2, 2, 1)), np.zeros((5, 3))), ValueError, "points: expected"),
        (
            lambda: sample(np.zeros((2, 2, 1)), np.zeros(2), padding="reflect"),
            ValueError,
            "padding: expected .*, got 'reflect'",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
