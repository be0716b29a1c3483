import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.metrics import PanopticQuality, panoptic_quality
from segjax.typing import Panoptic

# Pixels 0 to 7 in one row, of segments in a table of three.
quality = jax.jit(functools.partial(panoptic_quality, num_classes=2))
segment_maps = hnp.arrays(np.int32, (1, 8), elements=st.integers(-1, 2))
tables = hnp.arrays(np.int32, 3, elements=st.integers(0, 1))


def _panoptic(segments, *, classes=(0, 0, 1), valid=(True,) * 3, crowd=(False,) * 3):
    return Panoptic(*map(jnp.asarray, ([segments], classes, valid, crowd)))


def _counts(metric):
    """Hits, false alarms and misses, of all classes together."""
    counted = metric.true_positives, metric.false_positives, metric.false_negatives
    return tuple(int(counts.sum()) for counts in counted)


@given(segment_maps, tables)
def test_a_perfect_prediction_scores_1(segments, classes):
    record = _panoptic(segments[0], classes=classes)
    scores = quality(record, record).compute()
    for score in jax.tree.leaves(scores):
        np.testing.assert_array_equal(score, 1)


@given(segment_maps, segment_maps, tables, tables, st.permutations(range(3)))
def test_order_of_the_table_does_not_matter(predicted, labelled, classes, others, order):
    predictions, targets = _panoptic(predicted[0], classes=classes), _panoptic(labelled[0])
    renamed = np.where(predicted[0] < 0, -1, np.argsort(order)[predicted[0]])
    reordered = _panoptic(renamed, classes=classes[np.array(order)])
    expected = quality(predictions, targets)
    jax.tree.map(np.testing.assert_array_equal, quality(reordered, targets), expected)


def test_half_of_the_union_is_no_match():
    targets = _panoptic([0, 0, 0, 0, -1, -1, -1, -1])
    metric = quality(_panoptic([0, 0, -1, -1, -1, -1, -1, -1]), targets)
    assert _counts(metric) == (0, 1, 1)
    metric = quality(_panoptic([0, 0, 0, -1, -1, -1, -1, -1]), targets)
    assert _counts(metric) == (1, 0, 0)
    np.testing.assert_allclose(metric.compute().class_pq, [0.75, 1])


def test_union_leaves_out_void_of_the_target():
    targets = _panoptic([0, 0, 0, 0, -1, -1, -1, -1])
    metric = quality(_panoptic([-1, 0, 0, 0, 0, 0, 0, 0]), targets)
    np.testing.assert_allclose(metric.iou, [3 / 4, 0])


@pytest.mark.parametrize("crowd", [False, True])
def test_false_alarms_mostly_on_void_or_crowds_of_their_class_are_forgiven(crowd):
    """Of segment 2's eight pixels so many are void, or a crowd of its class; the rest is not."""
    for pixels, forgiven in ((4, False), (5, True)):
        ignored = 2 if crowd else -1
        targets = _panoptic([ignored] * pixels + [0] * (8 - pixels), crowd=(False, False, True))
        assert _counts(quality(_panoptic([2] * 8), targets)) == (0, not forgiven, 1)


def test_a_crowd_of_another_class_forgives_nothing_and_is_not_missed():
    targets = _panoptic([2] * 8, crowd=(False, False, True))
    assert _counts(quality(_panoptic([0] * 8), targets)) == (0, 1, 0)


@pytest.mark.parametrize("change", [{"valid": (True, True, False)}, {"classes": (0, 0, 2)}])
def test_pixels_of_rows_out_of_use_are_void(change):
    segments, others = [0, 0, 0, 1, 2, 2, 2, 2], [0, 0, 0, 0, 2, 2, 1, 1]
    void = [-1 if segment == 2 else segment for segment in segments]
    for first, second in ((segments, void), ([*segments[:4], 9, 9, 9, 9], void)):
        changed, expected = _panoptic(first, **change), _panoptic(second)
        a, b = quality(changed, _panoptic(others)), quality(expected, _panoptic(others))
        jax.tree.map(np.testing.assert_array_equal, a, b)
        a, b = quality(_panoptic(others), changed), quality(_panoptic(others), expected)
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_segments_and_classes_of_64_bits_do_not_wrap():
    """On the host: they are outside of the table, and of no class."""
    segments = np.array([[0, 0, 1, 1, 2, 2, -1, -1]])
    valid, classes = np.ones(3, bool), np.array([0, 1, 1])
    far = Panoptic(segments + 2**32 * (segments == 1), classes + np.array([0, 0, 2**32]), valid)
    void = Panoptic(np.where(segments == 0, 0, -1), classes, valid)
    truth = Panoptic(segments, classes, valid)
    for pair, expected in [((far, truth), (void, truth)), ((truth, far), (truth, void))]:
        actual, desired = (panoptic_quality(*x, num_classes=2) for x in (pair, expected))
        jax.tree.map(np.testing.assert_array_equal, actual, desired)


def test_means_are_those_of_the_classes_seen_and_asked_for():
    metric = PanopticQuality(*map(jnp.array, ([1.5, 0.0, 0.0], [2, 0, 0], [0, 0, 1], [0, 0, 0])))
    scores = metric.compute()
    np.testing.assert_allclose(scores.class_pq, [0.75, 1, 0])
    np.testing.assert_allclose(scores.pq, 0.375)
    np.testing.assert_allclose(metric.compute(where=jnp.array([True, True, False])).pq, 0.75)
    np.testing.assert_allclose(metric.compute(where=jnp.array([False, True, False])).pq, 1)


def test_tables_may_be_empty():
    record = _panoptic([-1] * 8)
    empty = Panoptic(record.segments, *(jnp.zeros(0, dtype) for dtype in (int, bool, bool)))
    assert _counts(quality(empty, record)) == (0, 0, 0)
    assert _counts(quality(record, empty)) == (0, 0, 0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    record = _panoptic([0] * 8)
    with pytest.raises(ValueError, match=r"predictions.segments: expected .*got \(1, 4\)"):
        panoptic_quality(_panoptic([0] * 4), record, num_classes=2)
    with pytest.raises(ValueError, match=r"num_classes: expected .*got 0"):
        panoptic_quality(record, record, num_classes=0)
