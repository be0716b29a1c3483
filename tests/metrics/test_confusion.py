import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.metrics import (
    class_dice,
    class_iou,
    confusion_matrix,
    dice_score,
    frequency_weighted_iou,
    mean_iou,
    pixel_accuracy,
)

SCORES = (mean_iou, dice_score, pixel_accuracy, frequency_weighted_iou)
label_maps = hnp.arrays(np.int32, (4, 6), elements=st.integers(0, 3))
anything = hnp.arrays(np.int32, (4, 6), elements=st.integers(-2, 6) | st.just(255))
matrices = hnp.arrays(np.int32, (4, 4), elements=st.integers(0, 20))


@given(anything, anything, hnp.arrays(bool, (4, 6)))
def test_counts_every_valid_pixel_of_known_classes_once(predictions, labels, where):
    expected = np.zeros((4, 4), int)
    for prediction, label, valid in zip(predictions.flat, labels.flat, where.flat, strict=True):
        if valid and 0 <= prediction < 4 and 0 <= label < 4:
            expected[label, prediction] += 1
    matrix = confusion_matrix(predictions, labels, 4, where=where)
    assert matrix.dtype == jnp.int32
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_small_dtypes_hold_many_classes(dtype):
    """The cell of class 100 among 150 is number 15,100: more than a byte counts."""
    labels = np.full((2, 2), 100, dtype)
    matrix = confusion_matrix(labels, labels, 150)
    assert matrix[100, 100] == 4
    assert matrix.sum() == 4


@given(label_maps, label_maps)
def test_matrices_of_parts_add_up(predictions, labels):
    parts = sum(confusion_matrix(predictions[i], labels[i], 4) for i in range(4))
    np.testing.assert_array_equal(parts, confusion_matrix(predictions, labels, 4))


@given(label_maps, label_maps)
def test_class_scores_are_the_set_measures_of_their_masks(predictions, labels):
    matrix = confusion_matrix(predictions, labels, 4)
    for c in range(4):
        a, b = predictions == c, labels == c
        if (a | b).any():
            iou, dice = (a & b).sum() / (a | b).sum(), 2 * (a & b).sum() / (a.sum() + b.sum())
        else:
            iou = dice = 1
        np.testing.assert_allclose(class_iou(matrix)[c], iou, rtol=1e-6)
        np.testing.assert_allclose(class_dice(matrix)[c], dice, rtol=1e-6)


@given(label_maps, label_maps)
def test_means_are_those_of_the_classes_seen(predictions, labels):
    matrix = confusion_matrix(predictions, labels, 4)
    seen = np.union1d(predictions, labels)
    np.testing.assert_allclose(mean_iou(matrix), np.mean(class_iou(matrix)[seen]), rtol=1e-6)
    np.testing.assert_allclose(dice_score(matrix), np.mean(class_dice(matrix)[seen]), rtol=1e-6)
    np.testing.assert_allclose(pixel_accuracy(matrix), np.mean(predictions == labels), rtol=1e-6)
    pixel_scores = np.asarray(class_iou(matrix))[labels]
    np.testing.assert_allclose(frequency_weighted_iou(matrix), np.mean(pixel_scores), rtol=1e-5)


@given(label_maps, label_maps, hnp.arrays(bool, 4))
def test_averages_are_of_the_masks_of_the_classes_asked_for(predictions, labels, where):
    matrix = confusion_matrix(predictions, labels, 4)
    chosen = np.flatnonzero(where)[:, None, None]
    p, y = predictions == chosen, labels == chosen
    overlap, both, size = (x.sum((1, 2)) for x in (p & y, p | y, y))
    rare = np.where(size, 1 / np.maximum(size, 1) ** 2, 0)
    for score, numerator, denominator in (
        (mean_iou, overlap, both),
        (dice_score, 2 * overlap, both + overlap),
    ):
        ratios = np.divide(numerator, denominator, where=denominator > 0, out=np.ones(len(rare)))
        for average, top, bottom in (
            ("macro", ratios[denominator > 0].sum(), (denominator > 0).sum()),
            ("micro", numerator.sum(), denominator.sum()),
            ("weighted", (size * ratios).sum(), size.sum()),
            ("generalized", (rare * numerator).sum(), (rare * denominator).sum()),
        ):
            expected = top / bottom if bottom else not both.any()
            actual = score(matrix, average=average, where=where)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, err_msg=average)


@given(matrices)
def test_scores_lie_in_the_unit_interval_and_the_diagonal_is_perfect(matrix):
    for score in SCORES:
        assert 0 <= score(matrix) <= 1 + 1e-6
        np.testing.assert_allclose(score(np.diag(np.diag(matrix))), 1, rtol=1e-6)


@given(matrices, st.permutations(range(4)))
def test_scores_do_not_depend_on_the_order_of_the_classes(matrix, order):
    for score in SCORES:
        np.testing.assert_allclose(score(matrix[order][:, order]), score(matrix), rtol=1e-6)


def test_scores_take_a_batch_of_matrices():
    batch = np.random.default_rng(0).integers(50, size=(2, 3, 4, 4))
    for score in (*SCORES, class_iou, class_dice):
        np.testing.assert_allclose(score(batch)[1, 2], score(batch[1, 2]), rtol=1e-6)


def test_sums_of_a_host_beyond_int32_are_not_cut():
    """Three thousand million pixels, as a large data set has."""
    matrix = np.array([[3_000_000_000, 1_000_000_000], [0, 4_000_000_000]], np.int64)
    np.testing.assert_allclose(class_iou(matrix), [0.75, 0.8])
    np.testing.assert_allclose(pixel_accuracy(matrix), 7 / 8)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    labels = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"predictions: expected .*got \(3,\)"):
        confusion_matrix(labels[0], labels, 2)
    with pytest.raises(ValueError, match=r"num_classes: expected .*got 0"):
        confusion_matrix(labels, labels, 0)
    with pytest.raises(ValueError, match=r"where: expected .*got \(2,\)"):
        confusion_matrix(labels, labels, 2, where=np.ones(2, bool))
    with pytest.raises(ValueError, match=r"average: expected .* got 'mean'"):
        mean_iou(np.zeros((2, 2)), average="mean")
    for score in (*SCORES, class_iou, class_dice):
        with pytest.raises(ValueError, match=r"matrix: expected .*got \(2, 3\)"):
            score(labels)
