"""From anchors and proposals to objects: plain loops, and what suppression may not do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax.inference import detect_objects, paste_objects, rpn_proposals
from segjax.ops import box_iou, clip_boxes, decode_boxes, paste_masks
from segjax.typing import Instances

SHAPE = 24, 32
PROPOSALS, CLASSES = 12, 3


def _boxes(rng, number):
    """Some reach out of the image, and some lie beyond it."""
    start = rng.uniform(-8, 30, (number, 2))
    return np.concatenate([start, start + rng.uniform(1, 16, (number, 2))], -1).astype(np.float32)


def _greedy(boxes, scores, groups, threshold):
    """The indices that remain, the surest first."""
    kept = []
    iou = np.asarray(box_iou(boxes, boxes))
    for i in np.argsort(-scores, kind="stable"):
        if all(iou[i, j] <= threshold for j in kept if groups[i] == groups[j]):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(3))
def test_proposals_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    sizes, most, remain = (40, 9, 1), 16, 12
    logits = [rng.normal(size=n).astype(np.float32) for n in sizes]
    deltas = [rng.normal(size=(n, 4), scale=0.3).astype(np.float32) for n in sizes]
    anchors = [_boxes(rng, n) for n in sizes]
    found = _propose(logits, deltas, anchors)

    boxes, scores, levels = [], [], []
    for level, (x, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
        best = np.argsort(-x)[:most]
        box = np.asarray(clip_boxes(decode_boxes(delta[best], anchor[best]), SHAPE))
        wide = (box[:, 2:] - box[:, :2] >= 1e-3).all(1)
        boxes.append(box[wide])
        scores.append(x[best][wide])
        levels.append(np.full(wide.sum(), level))
    boxes, scores, levels = map(np.concatenate, (boxes, scores, levels))
    kept = _greedy(boxes, scores, levels, 0.7)[:remain]
    valid = np.asarray(found.valid)
    assert_array_equal(valid, np.arange(remain) < len(kept))
    assert_allclose(found.boxes[valid], boxes[kept], rtol=1e-5, atol=1e-4)
    assert_allclose(found.scores[valid], 1 / (1 + np.exp(-scores[kept])), rtol=1e-5)
    assert_array_equal(found.classes[valid], levels[kept])


@jax.jit
def _propose(logits, deltas, anchors):
    return rpn_proposals(logits, deltas, anchors, SHAPE, most_of_level=16, max_proposals=12)


@functools.partial(jax.jit, static_argnames=("suppression", "most"))
def _detect(logits, deltas, proposals, where, suppression="hard", most=40):
    return detect_objects(
        logits,
        deltas,
        proposals,
        SHAPE,
        where=where,
        suppression=suppression,
        score_threshold=0.2,
        max_detections=most,
    )


def _stage(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(PROPOSALS, CLASSES + 1), scale=2).astype(np.float32)
    deltas = rng.normal(size=(PROPOSALS, CLASSES + 1, 4)).astype(np.float32)
    # Around few places, so that they overlap.
    proposals = _boxes(rng, 4)[np.arange(PROPOSALS) % 4] + rng.uniform(0, 1, (PROPOSALS, 4))
    return logits, deltas, proposals.astype(np.float32), np.arange(PROPOSALS) != 5


def _candidates(logits, deltas, proposals, where):
    """Boxes, scores and classes of all pairs that count."""
    probs = np.asarray(jax.nn.softmax(logits))[:, 1:]
    rows, classes = np.nonzero((probs > 0.2) & where[:, None])
    weights = (10.0, 10.0, 5.0, 5.0)
    boxes = decode_boxes(deltas[rows, classes + 1], proposals[rows], weights=weights)
    boxes = np.asarray(clip_boxes(boxes, SHAPE))
    wide = (boxes[:, 2:] - boxes[:, :2] >= 1e-2).all(1)
    return boxes[wide], probs[rows, classes][wide], classes[wide]


def test_an_anchor_of_minus_infinity_is_none():
    anchors = np.tile(np.float32([[0, 0, 9, 9], [9, 9, 20, 20], [3, 0, 6, 20]]), (2, 1))
    logits, deltas = np.float32([1, 3, 2, *[-np.inf] * 3]), np.zeros((6, 4), np.float32)
    options = {"most_of_level": 6, "max_proposals": 6, "iou_threshold": 1.0}
    found = rpn_proposals([logits], [deltas], [anchors], SHAPE, **options)
    assert_array_equal(found.valid, [True] * 3 + [False] * 3)
    assert_array_equal(found.boxes[:3], anchors[[1, 2, 0]])


@pytest.mark.parametrize("seed", range(3))
def test_hard_suppression_is_a_plain_loop_and_padding_follows(seed):
    stage = _stage(seed)
    found = _detect(*stage)
    boxes, scores, classes = _candidates(*stage)
    kept = _greedy(boxes, scores, classes, 0.5)
    valid = np.asarray(found.valid)
    assert 0 < len(kept) < len(boxes) or seed
    assert_array_equal(valid, np.arange(40) < len(kept))  # of 36 candidates at most
    assert_allclose(found.boxes[valid], boxes[kept], rtol=1e-5, atol=1e-4)
    assert_allclose(found.scores[valid], scores[kept], rtol=1e-5)
    assert_array_equal(found.classes[valid], classes[kept])


@pytest.mark.parametrize("suppression", ["soft", "matrix"])
def test_others_lower_scores_and_then_ask_for_them(suppression):
    stage = _stage()
    found = _detect(*stage, suppression=suppression)
    boxes, scores, classes = _candidates(*stage)
    valid = np.asarray(found.valid)
    assert 0 < valid.sum() < len(boxes)
    assert (np.diff(found.scores[valid]) <= 0).all()
    assert (found.scores[valid] > 0.2).all()
    same_box = np.abs(np.asarray(found.boxes)[:, None] - boxes).max(-1) < 1e-3
    own = (same_box & (np.asarray(found.classes)[:, None] == classes))[valid]
    assert_array_equal(own.sum(1), 1)
    before = scores[own.argmax(1)]
    assert (found.scores[valid] <= before + 1e-6).all()
    assert (found.scores[valid] < before - 1e-3).any()
    # The surest of a class has no surer one.
    for each in np.unique(classes):
        of_class = np.asarray(found.scores)[valid & (np.asarray(found.classes) == each)]
        assert_allclose(of_class.max(), scores[classes == each].max(), rtol=1e-5)


@pytest.mark.parametrize("suppression", ["hard", "soft", "matrix"])
def test_padding_is_never_seen(suppression):
    logits, deltas, proposals, where = _stage()
    expected = _detect(logits, deltas, proposals, where, suppression=suppression)
    spoilt = [np.where(where.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan) for x in _stage()[:3]]
    found = _detect(*spoilt, where, suppression=suppression)
    valid = np.asarray(expected.valid)
    assert_array_equal(found.valid, valid)
    jax.tree.map(lambda a, b: assert_array_equal(a[valid], b[valid]), found, expected)


@pytest.mark.parametrize("suppression", ["hard", "soft", "matrix"])
def test_without_proposals_there_is_no_object(suppression):
    found = detect_objects(
        jnp.zeros((0, 3)), jnp.zeros((0, 3, 4)), jnp.zeros((0, 4)), SHAPE, suppression=suppression
    )
    assert found.boxes.shape == (100, 4)
    assert not found.valid.any()


def test_few_detections_are_the_best_of_many():
    many, few = _detect(*_stage()), _detect(*_stage(), most=3)
    jax.tree.map(lambda a, b: assert_array_equal(a, b[:3]), few, many)


@pytest.mark.parametrize("number", [0, 1, 9])
def test_masks_are_pasted_above_one_half(number):
    """Numbers on both sides of a chunk's length."""
    rng = np.random.default_rng(number)
    logits = rng.normal(size=(2, number, 5, 4)).astype(np.float32)
    boxes = _boxes(rng, 2 * number).reshape(2, number, 4)
    valid = np.arange(number) % 3 != 1
    objects = Instances(boxes, np.zeros((2, number), np.int32), np.stack([valid] * 2))
    pasted = paste_objects(objects, logits, SHAPE)
    masks = np.asarray(paste_masks(jax.nn.sigmoid(logits), boxes, SHAPE)) > 0.5
    masks &= valid[:, None, None]
    assert_array_equal(pasted.masks, masks)
    assert_array_equal(pasted.valid, masks.any((-2, -1)))
    assert_array_equal(pasted.boxes, boxes)


def test_wrong_shapes_and_options_are_errors(unchecked_shapes):
    logits, deltas, proposals, _ = _stage()
    with pytest.raises(ValueError, match=r"suppression: expected .* got 'softer'"):
        detect_objects(logits, deltas, proposals, SHAPE, suppression="softer")
    with pytest.raises(ValueError, match=r"class_logits, deltas: expected .* and \(12, 3, 4\)"):
        detect_objects(logits, deltas[:, 1:], proposals, SHAPE)
    objects = Instances(proposals, np.zeros(12, np.int32), np.ones(12, bool))
    with pytest.raises(ValueError, match="mask_logits: expected shape"):
        paste_objects(objects, np.zeros((11, 2, 2), np.float32), SHAPE)
