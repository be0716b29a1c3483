import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from segjax.ops import bilateral_sum, mean_field

SIGMAS = {"spatial_sigma": 1.5, "bilateral_sigma": (3.0, 0.3)}
WEIGHTS = {"spatial_weight": 0.7, "bilateral_weight": 1.3}
OPTIONS = {"iterations": 3, **SIGMAS, **WEIGHTS}
every_window = pytest.mark.parametrize("window", [None, 1, 9])


def _random(seed=0):
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(4, 5, 3)), rng.uniform(size=(4, 5, 2)), rng.normal(size=(3, 3))
    return *(a.astype(np.float32) for a in arrays), rng.random((4, 5)) < 0.7


def _squares(features):
    """Between all pixels: `[h w, h w]`."""
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    return ((rows[:, None] - rows) ** 2).sum(axis=-1)


def _places(height, width):
    return np.stack(np.mgrid[:height, :width], axis=-1)


def _kernels(image, window):
    """The matrices of the two kernels, with their diagonals."""
    places = _places(*image.shape[:2])
    reach = np.abs(places.reshape(-1, 1, 2) - places.reshape(-1, 2)).max(axis=-1)
    connected = reach <= (window or np.inf)
    return [
        connected * np.exp(-_squares(places) / 2 / 1.5**2),
        connected * np.exp(-_squares(places) / 2 / 3**2 - _squares(image) / 2 / 0.3**2),
    ]


def _naive_mean_field(logits, image, compatibility, *, window, normalization, where):
    """Algorithm 1 of the paper, with whole matrices, in float64."""
    unary = logits.reshape(-1, 3).astype(np.float64) * where.reshape(-1, 1)
    q = special.softmax(unary, axis=-1)
    matrices = []
    for kernel in _kernels(image, window):
        kernel = kernel * np.outer(where, where)
        if normalization == "symmetric":
            sums = np.maximum(kernel.sum(axis=1), 1)
            kernel = kernel / np.sqrt(np.outer(sums, sums))
        matrices.append(kernel * (1 - np.eye(len(kernel))))
    for _ in range(3):
        messages = 0.7 * matrices[0] @ q + 1.3 * matrices[1] @ q
        q = special.softmax(unary - messages @ compatibility.T, axis=-1)
    return q.reshape(logits.shape)


@every_window
@pytest.mark.parametrize("normalization", ["symmetric", "none"])
def test_mean_field_is_the_papers_algorithm(window, normalization):
    logits, image, compatibility, where = _random()
    options = {"window": window, "normalization": normalization, "where": where}
    run = jax.jit(functools.partial(mean_field, **OPTIONS, **options))
    expected = _naive_mean_field(logits, image, compatibility, **options)
    log_q = run(logits, image, compatibility=compatibility)
    np.testing.assert_allclose(np.exp(log_q), expected, rtol=1e-4, atol=1e-6)
    if window == 1:
        potts = _naive_mean_field(logits, image, 1 - np.eye(3), **options)
        np.testing.assert_allclose(np.exp(run(logits, image)), potts, rtol=1e-4, atol=1e-6)


def test_a_window_over_the_whole_image_is_dense_in_every_gradient():
    def objective(arrays, window):
        weights = {"spatial_weight": arrays["w"][0], "bilateral_weight": arrays["w"][1]}
        log_q = mean_field(
            arrays["logits"],
            arrays["image"],
            compatibility=arrays["compatibility"],
            iterations=2,
            window=window,
            **SIGMAS,
            **weights,
        )
        return jnp.sum(log_q * jnp.cos(jnp.arange(log_q.size)).reshape(log_q.shape))

    logits, image, compatibility, _ = _random()
    arrays = {
        "logits": logits,
        "image": image,
        "compatibility": compatibility,
        "w": jnp.array([0.7, 1.3]),
    }
    slopes = jax.jit(jax.grad(objective), static_argnums=1)
    dense, windowed = slopes(arrays, None), slopes(arrays, 9)
    for name, gradient in dense.items():
        assert jnp.abs(gradient).max() > 0
        np.testing.assert_allclose(windowed[name], gradient, rtol=1e-3, atol=1e-5)


def test_two_pixels_settle_where_each_answers_the_other():
    """The fixed point: logit difference of one = its own + w·tanh(half that of the other)."""
    logits = jnp.array([[[1.0, 0.0], [0.0, 0.5]]])
    options = {"spatial_sigma": 1.0, "bilateral_sigma": (1.0, 1.0), "normalization": "none"}
    log_q = mean_field(
        logits,
        jnp.zeros((1, 2, 1)),
        iterations=60,
        spatial_weight=0.8,
        bilateral_weight=0.0,
        **options,
    )
    difference = np.asarray(log_q[0, :, 0] - log_q[0, :, 1])
    answer = np.array([1.0, -0.5]) + 0.8 * np.exp(-0.5) * np.tanh(difference[::-1] / 2)
    np.testing.assert_allclose(difference, answer, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 1])
def test_rows_and_columns_are_alike(window):
    logits, image, *_ = _random()
    run = jax.jit(functools.partial(mean_field, **OPTIONS, window=window))
    turned = run(logits.swapaxes(0, 1), image.swapaxes(0, 1))
    np.testing.assert_allclose(turned.swapaxes(0, 1), run(logits, image), rtol=1e-4, atol=1e-5)


def test_an_edge_of_the_image_draws_the_line():
    """A blurred guess, shifted by two pixels, moves to the edge and sharpens."""
    x = np.arange(12) + 0.5
    image = np.broadcast_to((x > 6)[:, None], (6, 12, 1)).astype(np.float32)
    score = np.broadcast_to(0.5 * (x - 4)[:, None], (6, 12, 1)).astype(np.float32)
    logits = np.concatenate([-score, score], axis=-1)
    log_q = mean_field(
        logits,
        image,
        iterations=10,
        spatial_weight=0.0,
        spatial_sigma=1.0,
        bilateral_weight=5.0,
        bilateral_sigma=(10.0, 0.1),
    )
    assert (logits.argmax(axis=-1) != image[..., 0]).sum() == 12
    np.testing.assert_array_equal(log_q.argmax(axis=-1), image[..., 0])


def test_without_iterations_or_neighbours_the_logits_speak_alone():
    logits, image, *_ = _random()
    expected = special.log_softmax(logits, axis=-1)
    alone = {**OPTIONS, "window": 0}
    for options in ({**OPTIONS, "iterations": 0}, alone):
        np.testing.assert_allclose(mean_field(logits, image, **options), expected, rtol=1e-5)


@every_window
@pytest.mark.parametrize("color_sigma", [None, 0.3])
def test_bilateral_sum_is_a_product_with_the_kernels_matrix(window, color_sigma):
    values, image, *_ = _random()
    kernel = _kernels(image, window)[1]
    if color_sigma is None:
        connected = kernel > 0
        kernel = connected * np.exp(-_squares(_places(4, 5)) / 2 / 3**2)
    kernel = kernel * (1 - np.eye(20))
    summed = bilateral_sum(values, image, spatial_sigma=3.0, color_sigma=color_sigma, window=window)
    np.testing.assert_allclose(
        summed.reshape(20, 3), kernel @ values.reshape(20, 3), rtol=1e-4, atol=1e-5
    )


def test_more_pixels_than_a_chunk():
    values = np.ones((17, 31, 1), np.float32)
    kernel = np.exp(-_squares(_places(17, 31)) / 2 / 4**2) - np.eye(17 * 31)
    summed = jax.jit(functools.partial(bilateral_sum, spatial_sigma=4.0))(values, values)
    np.testing.assert_allclose(summed.ravel(), kernel.sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("window", [None, 1])
def test_a_batch_is_its_images(window):
    batch = [_random(seed)[:2] for seed in range(2)]
    run = jax.jit(functools.partial(mean_field, **OPTIONS, window=window))
    together = run(*(np.stack(arrays) for arrays in zip(*batch, strict=True)))
    expected = np.stack([run(*one) for one in batch])
    np.testing.assert_allclose(together, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.ones((4, 4, 2))}, r"logits, image: expected .*, \(4, 4, 2\)"),
        ({"iterations": -1}, "iterations: expected"),
        ({"normalization": "row"}, r"normalization: expected .*got 'row'"),
        ({"compatibility": np.ones(3)}, r"compatibility: expected .*got \(3,\)"),
        ({"window": -1}, "window: expected"),
        ({"spatial_sigma": 0.0}, "spatial_sigma, color_sigma: expected"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(change, message):
    logits, image, *_ = _random()
    with pytest.raises(ValueError, match=message):
        mean_field(**({"logits": logits, "image": image} | OPTIONS | change))
