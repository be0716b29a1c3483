"""Every metric is the same however the examples were dealt out to batches and devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from segjax.metrics import (
    AveragePrecision,
    Calibration,
    ConfusionMatrix,
    LabelBoundaries,
    PanopticQuality,
    average_precision,
    confusion_matrix,
    expected_calibration_error,
    label_boundaries,
    panoptic_quality,
)
from segjax.typing import Instances, Panoptic

EXAMPLES, SIDE, OBJECTS, CLASSES = 8, 6, 5, 3


def _labels():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.integers(CLASSES, size=(2, EXAMPLES, SIDE, SIDE))))


def _probs():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.full(CLASSES, 0.3), (EXAMPLES, SIDE, SIDE))
    return jnp.asarray(probs), _labels()[1]


def _segments():
    rng = np.random.default_rng(2)
    segments = rng.integers(-1, OBJECTS, size=(EXAMPLES, SIDE, SIDE))
    noisy = np.where(rng.random(segments.shape) < 0.2, 0, segments)
    table = jnp.asarray(rng.integers(CLASSES, size=(EXAMPLES, OBJECTS)))
    valid = jnp.asarray(rng.random(table.shape) < 0.9)
    return tuple(Panoptic(jnp.asarray(x), table, valid) for x in (noisy, segments))


def _objects():
    rng = np.random.default_rng(3)
    start = rng.uniform(0, 50, (EXAMPLES, OBJECTS, 2))
    boxes = np.concatenate([start, start + rng.uniform(5, 50, start.shape)], -1)
    targets = Instances(
        boxes=jnp.asarray(boxes),
        classes=jnp.asarray(rng.integers(CLASSES, size=(EXAMPLES, OBJECTS))),
        valid=jnp.asarray(rng.random((EXAMPLES, OBJECTS)) < 0.8),
    )
    moved = targets.boxes + rng.normal(scale=2, size=boxes.shape)
    scores = jnp.asarray(rng.integers(4, size=(EXAMPLES, OBJECTS)) / 4)
    return dataclasses.replace(targets, boxes=moved, scores=scores), targets


def _confusion(predictions, labels):
    return ConfusionMatrix(confusion_matrix(predictions, labels, CLASSES))


METRICS = {
    "confusion": (_confusion, ConfusionMatrix.empty(CLASSES), _labels),
    "boundaries": (
        functools.partial(label_boundaries, num_classes=CLASSES),
        LabelBoundaries.empty(CLASSES),
        _labels,
    ),
    "calibration": (expected_calibration_error, Calibration.empty(), _probs),
    "panoptic": (
        functools.partial(panoptic_quality, num_classes=CLASSES),
        PanopticQuality.empty(CLASSES),
        _segments,
    ),
    "detection": (
        functools.partial(average_precision, num_classes=CLASSES),
        AveragePrecision.empty(CLASSES, kind="box"),
        _objects,
    ),
}


def _assert_same(metric, expected):
    assert jax.tree.structure(metric) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(metric), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a in jax.tree.leaves(dataclasses.asdict(metric.compute())):
        assert np.isfinite(a).all()


@pytest.mark.parametrize("name", METRICS)
def test_of_batches_and_devices(name):
    function, empty, draw = METRICS[name]
    function, arguments = jax.jit(function), draw()
    whole = function(*arguments)

    first, second = (
        jax.tree.map(lambda x, part=part: x[part], arguments) for part in (slice(0, 4), slice(4, 8))
    )
    _assert_same(empty.update(*first).merge(function(*second)), whole)

    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    sharded = jax.shard_map(
        lambda *arguments: function(*arguments).all_reduce("data"),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
    )
    _assert_same(jax.jit(sharded)(*arguments), whole)


@pytest.mark.parametrize("name", METRICS)
def test_of_nothing(name):
    scores = METRICS[name][1].compute()
    for a in jax.tree.leaves(dataclasses.asdict(scores)):
        assert np.isfinite(a).all()
