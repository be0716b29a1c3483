import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from segjax.losses.weak import dense_crf_loss, gated_crf_loss, total_variation
from segjax.ops import label_edges

OPTIONS = {"spatial_sigma": 2.0, "color_sigma": 0.3}
losses = pytest.mark.parametrize(
    "loss",
    [
        functools.partial(gated_crf_loss, window=2, **OPTIONS),
        functools.partial(dense_crf_loss, **OPTIONS),
    ],
    ids=["gated", "dense"],
)


def _random(seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(3), size=(5, 6)).astype(np.float32)
    return probs, rng.uniform(size=(5, 6, 3)).astype(np.float32), rng.random((5, 6)) < 0.7


@given(hnp.arrays(bool, (5, 6)))
def test_total_variation_of_a_mask_is_its_border(mask):
    border = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    assert total_variation(mask[..., None].astype(np.float32)).sum() == border


@pytest.mark.parametrize("isotropic", [False, True])
def test_total_variation_is_by_its_definition(isotropic):
    probs, _, where = _random()
    padded = np.pad(probs, [(0, 1), (0, 1), (0, 0)])
    kept = np.pad(where, [(0, 1), (0, 1)])
    down = (padded[1:, :-1] - probs) * (where & kept[1:, :-1])[..., None]
    right = (padded[:-1, 1:] - probs) * (where & kept[:-1, 1:])[..., None]
    expected = np.hypot(down, right) if isotropic else abs(down) + abs(right)
    variation = total_variation(probs, isotropic=isotropic, where=where)
    np.testing.assert_allclose(variation, expected, rtol=1e-5, atol=1e-7)


def test_isotropic_variation_of_a_slope_does_not_depend_on_its_direction():
    y, x = np.mgrid[:9, :9]
    slopes = [np.cos(t) * x + np.sin(t) * y for t in (0.0, 0.4, np.pi / 4)]
    variation = total_variation(np.stack(slopes, axis=-1).astype(np.float32), isotropic=True)
    np.testing.assert_allclose(variation[:-1, :-1], 1, rtol=1e-5)


@pytest.mark.parametrize("isotropic", [False, True])
def test_total_variation_leaves_flat_regions_alone_and_flattens_a_bump(isotropic):
    slope = jax.jit(jax.grad(lambda p: total_variation(p, isotropic=isotropic).sum()))
    np.testing.assert_array_equal(slope(jnp.full((5, 5, 1), 0.3)), 0)
    gradient = slope(jnp.zeros((5, 5, 1)).at[2, 2].set(1.0))
    assert gradient[2, 2] > 0
    np.testing.assert_array_equal(gradient[0], 0)


@losses
def test_crf_losses_are_sums_over_pairs(loss):
    probs, image, where = _random()
    window = loss.keywords.get("window", 9)
    expected = np.zeros((5, 6))
    for y, x, v, u in np.ndindex(5, 6, 5, 6):
        far = max(abs(y - v), abs(x - u)) > window
        if (y, x) == (v, u) or far or not (where[y, x] and where[v, u]):
            continue
        place = ((y - v) ** 2 + (x - u) ** 2) / 2**2
        color = ((image[y, x] - image[v, u]) ** 2).sum() / 0.3**2
        expected[y, x] += np.exp(-(place + color) / 2) * (1 - probs[y, x] @ probs[v, u])
    energies = jax.jit(loss)(probs, image, where=where)
    np.testing.assert_allclose(energies, expected, rtol=1e-4, atol=1e-6)


@losses
def test_crf_losses_are_zero_where_all_agree_and_cost_a_border_less_along_an_edge(loss):
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    one_hot = np.eye(2, dtype=np.float32)[labels]
    image = np.repeat(labels[..., None], 3, axis=-1).astype(np.float32)
    run = jax.jit(loss)
    on_edge, beside = run(one_hot, image), run(np.roll(one_hot, 1, axis=1), image)
    assert on_edge.sum() < 0.01 * beside.sum()
    np.testing.assert_array_equal(loss(np.ones((6, 8, 1), np.float32), image), 0)
    flat = run(one_hot, np.ones_like(image))
    assert (np.asarray(flat)[label_edges(labels)] > 0).all()


def test_a_window_over_the_whole_image_is_dense():
    probs, image, _ = _random()
    np.testing.assert_allclose(
        gated_crf_loss(probs, image, window=9, **OPTIONS),
        dense_crf_loss(probs, image, **OPTIONS),
        rtol=1e-5,
    )


@losses
def test_a_batch_is_its_images(loss):
    batch = [_random(seed)[:2] for seed in range(2)]
    together = loss(*(np.stack(arrays) for arrays in zip(*batch, strict=True)))
    np.testing.assert_allclose(together, np.stack([loss(*one) for one in batch]), rtol=1e-5)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    probs, image, _ = _random()
    with pytest.raises(ValueError, match=r"probs: expected .*got \(6, 3\)"):
        total_variation(probs[0])
    with pytest.raises(ValueError, match=r"probs, image: expected .*, \(4, 6, 3\)"):
        gated_crf_loss(probs, image[1:])
    with pytest.raises(ValueError, match="window: expected"):
        gated_crf_loss(probs, image, window=-1)
    with pytest.raises(ValueError, match="spatial_sigma, color_sigma: expected"):
        dense_crf_loss(probs, image, color_sigma=0.0)
