"""Distances between surfaces are SciPy's, in images and in volumes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segjax.metrics import (
    average_surface_distance,
    hausdorff_distance,
    normalized_surface_distance,
)

SHAPE, VOLUME = (9, 11), (5, 6, 7)
SPACING = (2.5, 0.5, 1.5)
PAIRS = hnp.arrays(bool, (2, *SHAPE))
BOTH_FILLED = PAIRS.filter(lambda pair: pair.any((1, 2)).all())
ALL = np.ones(SHAPE, bool)


def _compiled(function, **options):
    """The function with those options, called in one way, so that it is compiled once."""
    score = jax.jit(functools.partial(function, **options))
    return lambda p, y, where=ALL: score(p, y, where=where)


hausdorff = _compiled(hausdorff_distance)
spaced_hausdorff = _compiled(hausdorff_distance, percentile=100.0, spacing=(0.5, 2.0))
share_within_1 = _compiled(normalized_surface_distance, tolerance=1.0)
average = _compiled(average_surface_distance)
DISTANCES = pytest.mark.parametrize("score", [hausdorff, average], ids=["hausdorff", "average"])
EVERY_SCORE = pytest.mark.parametrize("score", [hausdorff, share_within_1, average])


def _box(rows, columns):
    mask = np.zeros(SHAPE, bool)
    mask[rows, columns] = True
    return mask


def _rim(mask):
    return mask & ~ndimage.binary_erosion(mask)


def _directed(p, y, spacing=None):
    """The distances of each rim's pixels to the other rim."""
    rims = _rim(p), _rim(y)
    return [
        ndimage.distance_transform_edt(~other, sampling=spacing)[rim]
        for rim, other in (rims, rims[::-1])
    ]


@DISTANCES
@given(PAIRS)
def test_distances_are_symmetric_and_0_for_equal_masks(score, pair):
    p, y = pair
    np.testing.assert_allclose(score(p, y), score(y, p), rtol=1e-6)
    assert score(y, y) == 0
    assert score(p, y) <= np.float32(math.hypot(*SHAPE))


def test_empty_masks():
    """Both: perfect. One of them: nothing is near, and the distance is the diagonal."""
    nothing, something = _box(0, slice(0)), _box(slice(2, 5), slice(3, 6))
    assert share_within_1(nothing, nothing) == 1
    assert share_within_1(something, nothing) == share_within_1(nothing, something) == 0
    for score in (hausdorff, average):
        assert score(nothing, nothing) == 0
        np.testing.assert_allclose(score(something, nothing), math.hypot(*SHAPE), rtol=1e-6)
    far = math.hypot(0.5 * SHAPE[0], 2 * SHAPE[1])
    np.testing.assert_allclose(spaced_hausdorff(something, nothing), far, rtol=1e-6)


@pytest.mark.parametrize(
    ("score", "percentile", "spacing"),
    [(hausdorff, 95, (1.0, 1.0)), (spaced_hausdorff, 100, (0.5, 2.0))],
)
@given(BOTH_FILLED)
def test_the_hausdorff_distance_is_a_percentile_of_scipys(score, percentile, spacing, pair):
    expected = max(np.percentile(far, percentile) for far in _directed(*pair, spacing))
    np.testing.assert_allclose(score(*pair), expected, rtol=1e-5, atol=1e-5)


@given(BOTH_FILLED)
def test_shares_and_averages_are_over_scipys_distances(pair):
    both = np.concatenate(_directed(*pair))
    np.testing.assert_allclose(share_within_1(*pair), np.mean(both <= 1), rtol=1e-6)
    np.testing.assert_allclose(average(*pair), np.mean(both), rtol=1e-6)


def test_volumes_have_surfaces_too():
    """Three spacings: rims in all directions, distances through the slices."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, 3, *VOLUME)), (0, 0, 1, 1, 1))
    p, y = smooth > 0
    scores = {
        "hausdorff": hausdorff_distance(p, y, percentile=90.0, spacing=SPACING),
        "share": normalized_surface_distance(p, y, tolerance=1.6, spacing=SPACING),
        "average": average_surface_distance(p, y, spacing=SPACING),
        "one-sided": average_surface_distance(p, y, symmetric=False, spacing=SPACING),
    }
    for i in range(3):
        from_p, from_y = _directed(p[i], y[i], SPACING)
        both = np.concatenate([from_p, from_y])
        expected = {
            "hausdorff": max(np.percentile(x, 90) for x in (from_p, from_y)),
            "share": np.mean(both <= 1.6),
            "average": both.mean(),
            "one-sided": from_p.mean(),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(scores[name][i], value, rtol=1e-6)


@EVERY_SCORE
def test_void_at_a_border_makes_none(score):
    """A prediction that ends in void is as good as the mask it stands for."""
    y = _box(slice(2, 7), slice(2, 9))
    where = ~_box(slice(0, 9), slice(5, 7))
    for content in (False, True):
        spoilt = np.where(where, y, content)
        assert score(spoilt, y, where=where) == score(y, y)
    assert score(np.where(where, y, False), y) != score(y, y)


@DISTANCES
def test_one_score_a_mask(score):
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 2, 3, *SHAPE)) < 0.7
    scores = score(p, y)
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores[1, 2], score(p[1, 2], y[1, 2]), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: hausdorff_distance(m[1:], m), ValueError, "predictions: expected the shape"),
        (lambda m: average_surface_distance(m, m, spacing=SPACING), ValueError, "targets: expect"),
        (lambda m: average_surface_distance(m * 1.0, m), TypeError, "predictions: expected bool"),
        (lambda m: hausdorff_distance(m, m, percentile=101.0), ValueError, "percentile: expected"),
        (lambda m: hausdorff_distance(m, m, spacing=(0.0, 1.0)), ValueError, "spacing: expected"),
        (
            lambda m: normalized_surface_distance(m, m, tolerance=-1.0),
            ValueError,
            "tolerance: expected at least 0, got -1.0",
        ),
        (
            lambda m: hausdorff_distance(m, m, where=jnp.ones(3, bool)),
            ValueError,
            "where: expected",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(SHAPE, bool))
