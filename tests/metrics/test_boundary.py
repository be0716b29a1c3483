import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segjax.metrics import (
    boundary_f_score,
    boundary_iou,
    label_boundaries,
)

SHAPE = (9, 11)
DIAGONAL = math.hypot(*SHAPE)
masks = hnp.arrays(bool, SHAPE)
ALL = np.ones(SHAPE, bool)


def _compiled(function, **options):
    """The function with those options, called in one way, so that it is compiled once."""
    score = jax.jit(functools.partial(function, **options))
    return lambda p, y, where=ALL: score(p, y, where=where)


SCORES = {
    "iou": _compiled(boundary_iou),
    "f": _compiled(boundary_f_score),
}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


def _box(rows, columns):
    mask = np.zeros(SHAPE, bool)
    mask[rows, columns] = True
    return mask


@every_score
@given(masks, masks)
def test_scores_are_symmetric_in_0_to_1_and_1_for_equal_masks(score, p, y):
    value = score(p, y)
    assert 0 <= value <= 1
    assert value == score(y, p)
    assert score(y, y) == 1


def test_empty_masks():
    """Both: perfect. One of them: nothing matches."""
    nothing, something = _box(0, slice(0)), _box(slice(2, 5), slice(3, 6))
    for score in SCORES.values():
        assert score(nothing, nothing) == 1
        assert score(something, nothing) == score(nothing, something) == 0


@given(masks, masks)
def test_the_f_score_is_that_of_davis(p, y):
    """Borders straddle pixels; they match within a disk."""

    def border(mask):
        padded = np.pad(mask, (0, 1), mode="edge")
        here, right, below, diagonal = (
            padded[:-1, :-1],
            padded[:-1, 1:],
            padded[1:, :-1],
            padded[1:, 1:],
        )
        return (here != right) | (here != below) | (here != diagonal)

    def share(border, other):
        radius = math.ceil(0.008 * DIAGONAL)
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disk = y**2 + x**2 <= radius**2
        return (border & ndimage.binary_dilation(other, disk)).sum() / max(border.sum(), 1)

    rims = border(p), border(y)
    precision, recall = (1 if not a.any() else share(a, b) for a, b in (rims, rims[::-1]))
    expected = 2 * precision * recall / max(precision + recall, 1e-9)
    np.testing.assert_allclose(SCORES["f"](p, y), expected, rtol=1e-6)


@given(masks, masks, st.integers(1, 4))
def test_boundary_iou_compares_what_eroding_takes_away(p, y, width):
    erode = functools.partial(ndimage.binary_erosion, structure=np.ones((3, 3)), iterations=width)
    p_band, y_band = (mask & ~erode(mask) for mask in (p, y))
    union = (p_band | y_band).sum()
    expected = (p_band & y_band).sum() / union if union else 1
    np.testing.assert_allclose(boundary_iou(p, y, width=width), expected, rtol=1e-6)


label_maps = hnp.arrays(np.int32, (2, *SHAPE), elements=st.integers(0, 3))


@given(label_maps, label_maps, hnp.arrays(bool, (2, *SHAPE)))
def test_bands_of_label_maps_are_those_of_each_classs_masks(predictions, labels, where):
    """By eroding one mask after the other; the second image ends before its canvas."""
    square = np.ones((3, 3))
    sizes = np.array([SHAPE, (6, 7)])
    sums = compiled_boundaries(predictions, labels, where=where, sizes=sizes)
    expected = np.zeros((3, 4), int)
    for k, (height, width) in enumerate(sizes):
        inside = np.s_[k, :height, :width]
        valid, width = where[inside], max(1, round(0.1 * math.hypot(height, width)))
        for c in range(4):
            p, y = (
                valid & (x == c) & ~ndimage.binary_erosion((x == c) | ~valid, square, width)
                for x in (predictions[inside], labels[inside])
            )
            expected[:, c] += (p & y).sum(), y.sum(), p.sum()
    np.testing.assert_array_equal([sums.both, sums.labelled, sums.predicted], expected)
    union = expected[1] + expected[2] - expected[0]
    ious = np.where(union > 0, expected[0] / np.maximum(union, 1), 1)
    scores = sums.compute()
    np.testing.assert_allclose(scores.class_boundary_iou, ious, rtol=1e-6)
    mean = ious[union > 0].mean() if union.any() else 1
    np.testing.assert_allclose(scores.mean_boundary_iou, mean, rtol=1e-6)


compiled_boundaries = jax.jit(functools.partial(label_boundaries, num_classes=4, fraction=0.1))


def test_labels_of_no_class_make_no_band():
    labels = np.zeros((1, *SHAPE), np.int32)
    sums = [
        label_boundaries(labels, np.where(np.eye(*SHAPE, 3) > 0, x, labels), 2) for x in (255, -1)
    ]
    void = label_boundaries(labels, labels, 2, where=np.eye(*SHAPE, 3) == 0)
    for other in sums:
        jax.tree.map(np.testing.assert_array_equal, other, void)


def test_wide_bands_give_mask_iou_and_narrow_ones_do_not_reward_the_inside():
    y = _box(slice(1, 8), slice(1, 10))
    p = _box(slice(1, 8), slice(1, 9))
    assert boundary_iou(p, y, width=9) == pytest.approx((p & y).sum() / (p | y).sum())
    assert boundary_iou(p, y, width=1) < boundary_iou(p, y, width=9)


@every_score
def test_void_at_a_border_makes_none(score):
    """A prediction that ends in void is as good as the mask it stands for."""
    y = _box(slice(2, 7), slice(2, 9))
    where = ~_box(slice(0, 9), slice(5, 7))
    for content in (False, True):
        spoilt = np.where(where, y, content)
        assert score(spoilt, y, where=where) == score(y, y)
    assert score(np.where(where, y, False), y) != score(y, y)


def test_one_score_a_mask():
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 2, 3, *SHAPE)) < 0.7
    scores = SCORES["f"](p, y)
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores[1, 2], SCORES["f"](p[1, 2], y[1, 2]), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: boundary_iou(m[1:], m), ValueError, r"predictions: expected .*got \(8, 11\)"),
        (lambda m: boundary_iou(m[0], m[0]), ValueError, r"targets: expected .*got \(11,\)"),
        (lambda m: boundary_iou(m, m, width=0), ValueError, r"width: expected .*got 0"),
        (
            lambda m: label_boundaries(m[None], m[None, 1:], 2),
            ValueError,
            r"predictions, labels: expected the same shape",
        ),
        (lambda m: label_boundaries(m[None], m[None], 0), ValueError, "num_classes: expected"),
        (
            lambda m: label_boundaries(m[None], m[None], 2, fraction=0.0),
            ValueError,
            "fraction: expected",
        ),
        (lambda m: boundary_f_score(m * 1.0, m), TypeError, r"predictions: expected .*got float64"),
        (
            lambda m: boundary_f_score(m, m, fraction=-1.0),
            ValueError,
            r"fraction: expected .*got -1.0",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(SHAPE, bool))
