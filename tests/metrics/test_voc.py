"""Pascal VOC's average precision, against a loop over detections as its rules are written."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.metrics import VocAveragePrecision, average_precision, voc_average_precision
from segjax.typing import Instances

IMAGES, DETECTIONS, OBJECTS, CLASSES = 6, 7, 4, 3


def _examples(seed=0):
    """Detections near objects, of few distinct scores; some objects lie close to one another."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 30, (IMAGES, OBJECTS, 2))
    boxes = np.concatenate([start, start + rng.integers(10, 25, start.shape)], -1)
    chosen = rng.integers(OBJECTS, size=(IMAGES, DETECTIONS, 1))
    found = np.take_along_axis(boxes, chosen, 1) + rng.normal(scale=2, size=(*chosen.shape[:2], 4))
    classes = rng.integers(CLASSES, size=(IMAGES, OBJECTS), dtype=np.int32)
    found_classes = np.take_along_axis(classes, chosen[..., 0], 1)
    targets = Instances(boxes.astype(np.float32), classes, rng.random(classes.shape) < 0.9)
    predictions = Instances(
        found.astype(np.float32),
        np.where(rng.random(found_classes.shape) < 0.2, 0, found_classes),
        rng.random(found_classes.shape) < 0.9,
        scores=(rng.integers(1, 9, found_classes.shape) / 8).astype(np.float32),
    )
    return predictions, targets, rng.random(classes.shape) < 0.3


def _iou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.maximum(sides, 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def _by_the_rules(predictions, targets, difficult, c, method, threshold=0.5):
    detections = [
        (-predictions.scores[i, k], i, k)
        for i in range(IMAGES)
        for k in range(DETECTIONS)
        if predictions.valid[i, k] and predictions.classes[i, k] == c
    ]
    objects = targets.valid & (targets.classes == c)
    taken, hits, misses, curve = set(), 0, 0, []
    for _, i, k in sorted(detections):
        ious = {
            j: _iou(predictions.boxes[i, k], targets.boxes[i, j])
            for j in np.flatnonzero(objects[i])
        }
        best = max(ious, key=ious.get, default=None)
        if best is not None and ious[best] >= threshold:
            if difficult[i, best]:
                continue
            hits, misses = hits + ((i, best) not in taken), misses + ((i, best) in taken)
            taken.add((i, best))
        else:
            misses += 1
        curve.append((hits / (objects & ~difficult).sum(), hits / (hits + misses)))
    best_from = lambda recall: max((p for r, p in curve if r >= recall), default=0)
    if method == "11-point":
        return np.mean([best_from(t / 10) for t in range(11)])
    recalls = [0, *sorted({r for r, _ in curve})]
    return sum((b - a) * best_from(b) for a, b in itertools.pairwise(recalls))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["area", "11-point"])
def test_it_is_what_the_rules_say(method, seed):
    predictions, targets, difficult = _examples(seed)
    metric = voc_average_precision(
        predictions, targets, num_classes=CLASSES, difficult=jnp.asarray(difficult)
    )
    scores = metric.compute(method=method)
    expected = [_by_the_rules(predictions, targets, difficult, c, method) for c in range(CLASSES)]
    np.testing.assert_allclose(scores.class_ap, expected, rtol=1e-12)
    np.testing.assert_allclose(scores.ap, np.mean(expected), rtol=1e-12)


def test_batches_and_devices_add_up():
    predictions, targets, difficult = _examples()
    whole = voc_average_precision(predictions, targets, num_classes=CLASSES, difficult=difficult)
    parts = VocAveragePrecision.empty(CLASSES)
    for i in range(0, IMAGES, 2):
        batch = jax.tree.map(lambda x, i=i: x[i : i + 2], (predictions, targets, difficult))
        parts = parts.update(*batch[:2], difficult=batch[2])
    np.testing.assert_array_equal(parts.compute().class_ap, whole.compute().class_ap)

    def on_devices(predictions, targets, difficult):
        metric = voc_average_precision(
            predictions, targets, num_classes=CLASSES, difficult=difficult
        )
        return metric.all_reduce("devices")

    gathered = jax.pmap(on_devices, "devices")(predictions, targets, difficult)
    gathered = jax.tree.map(lambda x: x[0], gathered)
    np.testing.assert_array_equal(gathered.compute().class_ap, whole.compute().class_ap)


def test_a_second_detection_of_an_object_never_takes_the_next_best():
    """COCO gives it the other object of which it covers half."""
    objects = jnp.array([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0]])
    targets = Instances(objects, jnp.zeros(2, int), jnp.ones(2, bool))
    predictions = Instances(
        jnp.array([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]]),
        jnp.zeros(2, int),
        jnp.ones(2, bool),
        scores=jnp.array([0.9, 0.8]),
    )
    voc = voc_average_precision(predictions, targets, num_classes=1)
    assert voc.outcomes.tolist() == [1, -1]
    assert voc.compute().ap == 0.5
    np.testing.assert_allclose(voc.compute(method="11-point").ap, 6 / 11)
    assert average_precision(predictions, targets, num_classes=1).compute().ap50 == 1


def test_masks_are_compared_where_asked_for():
    masks = np.zeros((2, 4, 8), bool)
    masks[0, :, :4] = masks[1, :, 4:] = True
    boxes = jnp.zeros((2, 4))
    targets = Instances(boxes, jnp.zeros(2, int), jnp.ones(2, bool), masks=masks)
    predictions = dataclasses.replace(targets, masks=masks[::-1], scores=jnp.ones(2))
    metric = voc_average_precision(predictions, targets, num_classes=1, kind="mask")
    assert metric.outcomes.tolist() == [1, 1]


@pytest.mark.parametrize("place", ["predictions", "targets"])
def test_a_class_without_objects_has_no_score(place):
    predictions, targets, _ = _examples()
    none = np.zeros_like(targets.valid)
    score = voc_average_precision(predictions, targets, num_classes=CLASSES + 1).compute()
    assert score.class_ap[CLASSES] == -1
    if place == "targets":
        empty = dataclasses.replace(targets, valid=none)
        assert voc_average_precision(predictions, empty, num_classes=CLASSES).compute().ap == -1
    else:
        missed = dataclasses.replace(predictions, valid=np.zeros_like(predictions.valid))
        assert voc_average_precision(missed, targets, num_classes=CLASSES).compute().ap == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes: expected at least 1"),
        ({"kind": "edge"}, "kind: expected"),
        ({"kind": "mask"}, r"predictions.masks, targets.masks: expected"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(change, message):
    predictions, targets, _ = _examples()
    with pytest.raises(ValueError, match=message):
        voc_average_precision(predictions, targets, **{"num_classes": CLASSES} | change)
