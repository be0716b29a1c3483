import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.inference import (
    instance_segmentation,
    object_detection,
    semantic_labels,
    semantic_segmentation,
)
from segjax.ops import resize

RNG = np.random.default_rng(0)
CLASS_LOGITS = (2 * RNG.normal(size=(2, 6, 4))).astype(np.float32)
MASK_LOGITS = (3 * RNG.normal(size=(2, 6, 4, 5))).astype(np.float32)
MASK_LOGITS[:, 2] = -1  # an empty mask
PROBS = np.exp(CLASS_LOGITS) / np.exp(CLASS_LOGITS).sum(-1, keepdims=True)
segment = jax.jit(
    instance_segmentation,
    static_argnames=("shape", "rule", "max_instances", "score_threshold", "canvas", "size"),
)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_objects_are_the_most_probable_pairs():
    """Mask2Former's rule, one picture and one pair after the other; the mask at full size."""
    shape, things = (8, 5), np.array([True, False, True])
    objects = segment(
        CLASS_LOGITS, MASK_LOGITS, shape, things=things, max_instances=12, score_threshold=0.1
    )
    for i in range(2):
        logits = np.moveaxis(resize(np.moveaxis(MASK_LOGITS[i], 0, -1), shape), -1, 0)
        pairs = sorted(np.ndindex(6, 3), key=lambda pair: -PROBS[i][pair])[:12]
        for row, (query, label) in enumerate(pairs):
            mask = logits[query] > 0
            score = (
                PROBS[i, query, label] * _sigmoid(logits[query])[mask].sum() / max(mask.sum(), 1)
            )
            assert objects.classes[i, row] == label
            np.testing.assert_allclose(objects.scores[i, row], score, rtol=1e-5)
            np.testing.assert_array_equal(objects.masks[i, row], mask)
            assert objects.valid[i, row] == (mask.any() and things[label] and score >= 0.1)
            if mask.any():
                rows, columns = np.nonzero(mask)
                box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                np.testing.assert_array_equal(objects.boxes[i, row], box)
    assert 0 < objects.valid.sum() < objects.valid.size


def test_detr_decides_on_the_canvas_and_takes_each_query_once():
    canvas, size, shape = (8, 10), (6, 9), (9, 13)
    objects = segment(CLASS_LOGITS[0], MASK_LOGITS[0], shape, rule="detr", canvas=canvas, size=size)
    best = PROBS[0, :, :3].max(-1)
    order = np.argsort(-best)
    np.testing.assert_allclose(objects.scores, best[order], rtol=1e-5)
    np.testing.assert_array_equal(objects.classes, PROBS[0, :, :3].argmax(-1)[order])
    masks = resize(MASK_LOGITS[0, order][..., None], canvas)[:, : size[0], : size[1]] > 0
    expected = resize(masks, shape, method="nearest")[..., 0]
    np.testing.assert_array_equal(objects.masks, expected)


def test_pixels_outside_the_picture_are_no_mask():
    where = np.arange(4)[:, None] < np.array([4] * 3 + [0] * 2)
    objects = segment(CLASS_LOGITS, MASK_LOGITS, (4, 5), where=where)
    assert objects.masks.any()
    assert not objects.masks[..., ~where].any()


def test_semantic_scores_are_sums_over_queries():
    scores = semantic_segmentation(CLASS_LOGITS, MASK_LOGITS, (4, 5))
    expected = np.einsum("bqc,bqhw->bhwc", PROBS[..., :3], _sigmoid(MASK_LOGITS))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(semantic_labels(scores), expected.argmax(-1))


def test_boxes_are_in_pixels_of_each_picture():
    boxes = jnp.array([[[0.5, 0.5, 1.0, 1.0]] * 6] * 2)
    objects = object_detection(CLASS_LOGITS, boxes, jnp.array([[10, 20], [30, 40]]))
    np.testing.assert_array_equal(objects.boxes[:, 0], [[0, 0, 20, 10], [0, 0, 40, 30]])
    assert objects.valid.all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"mask_logits: expected .* got \(2, 6, 4\)"):
        semantic_segmentation(CLASS_LOGITS, MASK_LOGITS[..., 0], (4, 5))
    with pytest.raises(ValueError, match=r"rule: expected one of mask2former.* got 'best'"):
        instance_segmentation(CLASS_LOGITS, MASK_LOGITS, (4, 5), rule="best")
    with pytest.raises(ValueError, match="max_instances: expected at least 1, got 0"):
        instance_segmentation(CLASS_LOGITS, MASK_LOGITS, (4, 5), max_instances=0)
    with pytest.raises(ValueError, match=r"class_logits: expected .* \(2, 5, 4\), got \(2, 6, 4\)"):
        object_detection(CLASS_LOGITS, jnp.zeros((2, 5, 4)), (4, 5))
