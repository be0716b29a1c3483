import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops import (
    assign_levels,
    crop_masks,
    multilevel_roi_align,
    roi_align,
    roi_pool,
    sample,
)

OUTPUT_SIZE = (2, 3)
HEIGHT, WIDTH = 6, 8
FEATURES = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 2)).astype(np.float32)


def _plain_roi_align(boxes, *, sampling_ratio, aligned, method):
    """Box by box, bin by bin, sample by sample; what lies between pixels is `sample`'s."""
    bins = []
    for box in boxes.astype(np.float64):
        start, sides = box[:2] + (0 if aligned else 0.5), box[2:] - box[:2]
        sides = sides if aligned else np.maximum(sides, 1)
        adapted = np.maximum(np.ceil(sides / (3, 2)), 0).astype(int)
        across, down = adapted if sampling_ratio is None else 2 * [sampling_ratio]
        for i, j in itertools.product(range(2), range(3)):
            shares = [
                (j + (b + 0.5) / across, i + (a + 0.5) / down)
                for a, b in itertools.product(range(down), range(across))
            ]
            bins.append(start + np.reshape(shares, (-1, 2)) * sides / (3, 2))
    points = np.concatenate(bins).astype(np.float32)
    values = np.asarray(sample(FEATURES, points, method=method, padding="border"))
    inside = (points >= -0.5) & (points <= np.array([WIDTH, HEIGHT]) + 0.5)
    values = np.where(inside.all(axis=-1, keepdims=True), values, 0)
    ends = np.cumsum([len(points) for points in bins])
    means = [part.sum(axis=0) / max(len(part), 1) for part in np.split(values, ends[:-1])]
    return np.reshape(means, (len(boxes), 2, 3, -1))


@pytest.mark.parametrize(
    ("sampling_ratio", "aligned", "method"),
    [(2, True, "nearest"), (None, True, "bilinear"), (None, False, "nearest")],
)
def test_bins_are_means_of_samples(sampling_ratio, aligned, method):
    """Of boxes inside, across the edge, outside, without area, and with their sides swapped."""
    options = {"sampling_ratio": sampling_ratio, "aligned": aligned, "method": method}
    random = np.random.default_rng(1).uniform(-4, 12, (12, 4))
    boxes = np.array([*random, [1.3] * 4, [2.1, 0.7, 2.1, 4.2], [-9, -9, -5, -5]], np.float32)
    pooled = roi_align(FEATURES, boxes, OUTPUT_SIZE, **options)
    np.testing.assert_allclose(pooled, _plain_roi_align(boxes, **options), atol=1e-5)


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(0.5, 5.5, width=32)))
def test_bins_of_a_plane_are_its_values_at_their_centres(boxes):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    plane = (2 * columns - 3 * rows)[..., None].astype(np.float32)
    pooled = roi_align(plane, boxes, OUTPUT_SIZE)[..., 0]
    x0, y0, x1, y1 = boxes.T[..., None]
    x = x0 + (np.arange(3) + 0.5) * (x1 - x0) / 3
    y = y0 + (np.arange(2) + 0.5) * (y1 - y0) / 2
    np.testing.assert_allclose(pooled, 2 * x[:, None] - 3 * y[:, :, None], atol=1e-4)


def test_boxes_however_large_are_finite():
    boxes = jnp.array([[-1e30, -1e30, 1e30, 1e30], [1e30, 1e30, -1e30, -1e30], [1e30] * 4])

    @jax.jit
    def run(boxes):
        pooled, pull = jax.vjp(
            lambda boxes: roi_align(FEATURES, boxes, OUTPUT_SIZE, sampling_ratio=None), boxes
        )
        return pooled, pull(pooled)

    assert all(np.isfinite(array).all() for array in jax.tree.leaves(run(boxes)))


@pytest.mark.parametrize(
    "pool",
    [
        functools.partial(roi_align, sampling_ratio=2),
        functools.partial(roi_align, sampling_ratio=None),
        roi_pool,
    ],
    ids=["fixed", "adaptive", "maximum"],
)
@pytest.mark.parametrize(("place", "bad"), [(0, np.nan), (3, np.nan), (1, np.inf), (2, -np.inf)])
def test_a_box_that_is_not_finite_gives_nan_and_no_gradient(pool, place, bad):
    """So it is seen where it counts, and where a mask leaves it out it does not matter."""
    features = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, 2)), jnp.float32)
    boxes = jnp.array([[1.0, 1.0, 4.0, 4.0]] * 2).at[1, place].set(bad)

    def pooled(features, boxes):
        return pool(features, boxes, (2, 2))

    result, pull = jax.vjp(pooled, features, boxes)
    np.testing.assert_array_equal(jnp.isnan(result).all((1, 2, 3)), [False, True])
    assert jnp.isfinite(result[0]).all()
    double = pull(jnp.ones_like(result).at[1].set(0))
    single = jax.grad(lambda f, b: pooled(f, b).sum(), (0, 1))(features, boxes[:1])
    np.testing.assert_allclose(double[0], single[0], rtol=1e-6)
    np.testing.assert_allclose(double[1], jnp.concatenate([single[1], jnp.zeros((1, 4))]))


def test_boxes_of_a_batch_share_features():
    """And so their gradients by them add up."""
    boxes = np.random.default_rng(0).uniform(-2, 9, (3, 4, 4)).astype(np.float32)

    def objective(features, boxes):
        return jnp.sum(jnp.cos(roi_align(features, boxes, OUTPUT_SIZE, sampling_ratio=None)))

    in_batch = jax.jit(jax.grad(lambda f: jax.vmap(objective, (None, 0))(f, boxes).sum()))
    at_once = jax.jit(jax.grad(lambda f: objective(f, boxes.reshape(12, 4))))
    np.testing.assert_allclose(in_batch(FEATURES), at_once(FEATURES), atol=1e-5)


@pytest.mark.parametrize("sampling_ratio", [2, None])
def test_no_boxes_have_no_features(sampling_ratio):
    pooled = roi_align(
        FEATURES, np.zeros((0, 4), np.float32), OUTPUT_SIZE, sampling_ratio=sampling_ratio
    )
    assert pooled.shape == (0, *OUTPUT_SIZE, 2)


def test_each_box_is_pooled_at_its_level():
    rng = np.random.default_rng(0)
    pyramid = [rng.normal(size=(16 // 2**i, 12 // 2**i, 2)).astype(np.float32) for i in range(3)]
    start, sides = rng.uniform(-8, 40, (15, 2)), rng.uniform(1, 60, (15, 2))
    boxes = np.concatenate([start, start + sides], axis=1).astype(np.float32)
    options = {"canonical_level": 3, "canonical_size": 16.0}
    levels = assign_levels(boxes, min_level=2, max_level=4, **options)
    assert set(np.asarray(levels)) == {2, 3, 4}
    pooled = multilevel_roi_align(pyramid, boxes, OUTPUT_SIZE, **options)
    for level, features in enumerate(pyramid, start=2):
        alone = roi_align(features, boxes, OUTPUT_SIZE, spatial_scale=0.5**level)
        np.testing.assert_allclose(pooled[levels == level], alone[levels == level], atol=1e-6)


def test_of_a_canvas_the_image_alone_is_read():
    """Boxes at its border and beyond have what they have on the levels cut to it."""
    rng = np.random.default_rng(0)
    pyramid = [rng.normal(size=(16 // 2**i, 16 // 2**i, 2)).astype(np.float32) for i in range(3)]
    sizes = np.int32([[12, 8], [6, 4], [3, 2]])
    start, sides = rng.uniform(-8, 48, (15, 2)), rng.uniform(1, 60, (15, 2))
    boxes = np.concatenate([start, start + sides], axis=1).astype(np.float32)
    options = {"canonical_level": 3, "canonical_size": 16.0}
    pooled = multilevel_roi_align(pyramid, boxes, OUTPUT_SIZE, sizes=sizes, **options)
    cut = [level[:h, :w] for level, (h, w) in zip(pyramid, sizes, strict=True)]
    alone = multilevel_roi_align(cut, boxes, OUTPUT_SIZE, **options)
    np.testing.assert_allclose(pooled, alone, atol=1e-6)


def test_levels_double_in_size():
    """At the very border of two levels the upper one, as eq. 1 has it."""
    for side, level in [
        (0, 2),
        (1, 2),
        (111.9, 2),
        (112, 3),
        (223.9, 3),
        (224, 4),
        (448, 5),
        (1e9, 5),
    ]:
        assert assign_levels(jnp.array([7.0, 7.0, 7.0 + side, 7.0 + side])) == level
    assert assign_levels(jnp.array([0.0, 0.0, 56.0, 896.0])) == 4
    assert assign_levels(jnp.array([500.0, 500.0, 0.0, 0.0])) == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, b: roi_align(f[None], b, (2, 2)), ValueError, "features: expected"),
        (lambda f, b: roi_align(f[:0], b, (2, 2)), ValueError, "features: expected"),
        (lambda f, b: roi_align(f > 0, b, (2, 2)), TypeError, r"features: expected .*got bool"),
        (lambda f, b: roi_align(f, b[0], (2, 2)), ValueError, r"boxes: expected .*got \(4,\)"),
        (lambda f, b: roi_align(f, b.astype(int), (2, 2)), TypeError, r"boxes: expected .*got int"),
        (lambda f, b: roi_align(f, b, (2, 0)), ValueError, r"output_size: expected .*got \(2, 0\)"),
        (
            lambda f, b: roi_align(f, b, (2, 2), sampling_ratio=0),
            ValueError,
            r"sampling_ratio: expected .*got 0",
        ),
        (
            lambda f, b: roi_align(f, b, (2, 2), method="cubic"),
            ValueError,
            r"method: expected .*got 'cubic'",
        ),
        (
            lambda f, b: multilevel_roi_align([], b, (2, 2)),
            ValueError,
            r"features: expected .*got none",
        ),
        (
            lambda f, b: multilevel_roi_align([f, f[..., :1]], b, (2, 2)),
            ValueError,
            r"features: expected .*got \(6, 8, 1\)",
        ),
        (lambda f, b: assign_levels(b, max_level=1), ValueError, r"max_level: expected .*got 1"),
        (
            lambda f, b: crop_masks(f > 0, b, np.zeros(2, int), (2, 2)),
            ValueError,
            r"masks, boxes, mask_of: expected .*, \(2,\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(FEATURES, np.zeros((3, 4), np.float32))


def test_masks_are_cropped_each_by_itself():
    """As ROIAlign of all of them does; next to a mask's border no other one shines through."""
    random = np.random.default_rng(2)
    masks = random.random((3, HEIGHT, WIDTH)) < 0.5
    corners = np.sort(random.uniform(0, [[WIDTH], [HEIGHT]], (7, 2, 2)), axis=-1)
    whole = [[0, 0, WIDTH, HEIGHT]]
    boxes = np.concatenate([corners.swapaxes(1, 2).reshape(7, 4), whole]).astype(np.float32)
    mask_of = np.array([0, 1, 2, 1, 0, 9, -1, 1])
    options = {"sampling_ratio": None, "aligned": False}
    channels = roi_align(
        np.moveaxis(masks, 0, -1).astype(np.float32), boxes, OUTPUT_SIZE, **options
    )
    desired = np.take_along_axis(channels, mask_of.clip(0, 2)[:, None, None, None], axis=-1)[..., 0]
    np.testing.assert_allclose(crop_masks(masks, boxes, mask_of, OUTPUT_SIZE), desired, atol=1e-6)
    assert not np.any(crop_masks(masks[:0], boxes, mask_of, OUTPUT_SIZE))
