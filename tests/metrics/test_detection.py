import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.metrics import AveragePrecision, average_precision
from segjax.typing import Instances

FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
RECALLS = ("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large")

precision = functools.partial(average_precision, num_classes=2)


def _objects(seed=0):
    """Five objects of two classes, apart from one another: small, medium and large ones."""
    sides = jnp.array([10.0, 20.0, 40.0, 60.0, 200.0])
    corner = jnp.arange(5)[:, None] * 300 + jax.random.uniform(jax.random.key(seed), (5, 2))
    boxes = jnp.concatenate([corner, corner + sides[:, None]], -1)
    return Instances(boxes, classes=jnp.array([0, 1, 0, 1, 1]), valid=jnp.ones(5, bool))


def _take(record, rows):
    return jax.tree.map(lambda x: x[np.array(rows, int)], record)


def _figures(scores):
    return np.array([getattr(scores, name) for name in FIGURES + RECALLS])


def test_a_perfect_prediction_scores_1():
    """But for the recall of a single detection in each class."""
    targets = _objects()
    predictions = dataclasses.replace(targets, scores=jnp.linspace(0.1, 0.9, 5))
    scores = precision(predictions, targets).compute()
    np.testing.assert_allclose(_figures(scores), [1, 1, 1, 1, 1, 1, (1 / 2 + 1 / 3) / 2, *[1] * 5])
    np.testing.assert_array_equal(scores.class_ap, 1)


def test_nothing_found_is_0_and_nothing_to_find_is_minus_1():
    objects = _objects()
    none = dataclasses.replace(objects, valid=jnp.zeros(5, bool), scores=jnp.ones(5))
    found = dataclasses.replace(objects, scores=jnp.ones(5))
    np.testing.assert_array_equal(_figures(precision(none, objects).compute()), 0)
    np.testing.assert_array_equal(_figures(precision(found, none).compute()), -1)
    large = dataclasses.replace(objects, valid=jnp.arange(5) == 4)
    scores = precision(found, large).compute()
    assert (scores.ap_small, scores.ap_medium, scores.ap_large) == (-1, -1, 1)
    np.testing.assert_array_equal(scores.class_ap, [-1, scores.ap])


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_order_of_the_lists_does_not_matter(first, second):
    targets = _objects()
    moved = targets.boxes + jnp.array([0.0, 1.0, 2.0, 20.0, 40.0])[:, None]
    predictions = dataclasses.replace(targets, boxes=moved, scores=jnp.linspace(0.1, 0.9, 5))
    metric = precision(_take(predictions, first), _take(targets, second))
    jax.tree.map(np.testing.assert_array_equal, metric, precision(predictions, targets))


def test_rows_out_of_use_do_not_matter():
    """Neither what is not valid nor what has a class that is none."""
    targets = _objects()
    predictions = dataclasses.replace(targets, scores=jnp.linspace(0.1, 0.9, 5))
    expected = precision(
        dataclasses.replace(predictions, valid=jnp.arange(5) < 3),
        dataclasses.replace(targets, valid=jnp.arange(5) < 3),
    ).compute()
    for change in (jnp.array([0, 1, 0, 2, -1]), jnp.array([0, 1, 0, 255, 7])):
        scores = precision(
            dataclasses.replace(predictions, classes=change),
            dataclasses.replace(targets, classes=change),
        ).compute()
        np.testing.assert_array_equal(_figures(scores), _figures(expected))


def test_areas_default_to_those_of_the_boxes():
    targets = _objects()
    predictions = dataclasses.replace(targets, scores=jnp.ones(5))
    sides = targets.boxes[:, 2:] - targets.boxes[:, :2]
    annotated = dataclasses.replace(targets, areas=sides.prod(-1))
    expected = precision(predictions, targets)
    jax.tree.map(np.testing.assert_array_equal, precision(predictions, annotated), expected)


def test_sets_may_be_empty():
    targets = _objects()
    predictions = dataclasses.replace(targets, scores=jnp.ones(5))
    none, no_targets = _take(predictions, []), _take(targets, [])
    assert precision(none, targets).compute().ap == 0
    assert precision(predictions, no_targets).compute().ap == -1
    assert precision(none, no_targets).compute().ap == -1


def test_merging_takes_batches_of_any_padding():
    targets = _objects()
    predictions = dataclasses.replace(targets, scores=jnp.ones(5))
    fewer = _take(predictions, range(3)), _take(targets, range(3))
    metric = AveragePrecision.empty(2, kind="box").update(predictions, targets).update(*fewer)
    assert metric.compute().ap == 1
    assert metric.objects[:, 0].sum() == 8


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    targets = _objects()
    predictions = dataclasses.replace(targets, scores=jnp.ones(5))
    with pytest.raises(ValueError, match=r"predictions.scores: expected"):
        precision(targets, targets)
    with pytest.raises(ValueError, match=r"predictions.masks, targets.masks: expected"):
        precision(predictions, targets, kind="mask")
    with pytest.raises(ValueError, match=r"predictions.classes: expected .*got \(1,\)"):
        precision(jax.tree.map(lambda x: x[None], predictions), targets)
    masks, small = jnp.zeros((5, 4, 4), bool), jnp.zeros((5, 4, 3), bool)
    with pytest.raises(ValueError, match=r"predictions.masks: expected .*got \(5, 4, 3\)"):
        precision(
            dataclasses.replace(predictions, masks=small),
            dataclasses.replace(targets, masks=masks),
            kind="mask",
        )
    with pytest.raises(ValueError, match=r"kind: expected .*got 'segm'"):
        precision(predictions, targets, kind="segm")
    with pytest.raises(ValueError, match=r"num_classes: expected .*got 0"):
        average_precision(predictions, targets, num_classes=0)
