import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.inference import panoptic_segmentation
from segjax.ops import resize

THINGS = np.array([True, True, False, False])
NONE = len(THINGS)  # the class "no object"
SHAPE = 7, 9
SCORE, OVERLAP = 0.45, 0.6  # thresholds
fuse = jax.jit(
    functools.partial(
        panoptic_segmentation,
        things=THINGS,
        shape=SHAPE,
        score_threshold=SCORE,
        overlap_threshold=OVERLAP,
    ),
    static_argnames=("rule", "canvas", "size"),
)


def _draw(seed, queries=8, shape=SHAPE):
    """Logits of few classes, so that stuff merges; two queries are the same, so that they tie."""
    rng = np.random.default_rng(seed)
    class_logits = rng.normal(size=(queries, NONE + 1))
    class_logits += 3 * np.eye(NONE + 1)[rng.integers(NONE + 1, size=queries)]
    mask_logits = rng.normal(size=(queries, 1, 1)) + 2 * rng.normal(size=(queries, *shape))
    for logits in (class_logits, mask_logits):
        logits[5] = logits[2]
    return class_logits.astype(np.float32), mask_logits.astype(np.float32)


def _loop(class_logits, mask_logits, where, rule):
    """Query after query: a map of queries with void -1, and {query: class}."""
    probs = np.exp(class_logits) / np.exp(class_logits).sum(-1, keepdims=True)
    masks = 1 / (1 + np.exp(-mask_logits))
    scores, classes = probs.max(-1), probs.argmax(-1)
    kept = [k for k in range(len(scores)) if classes[k] != NONE and scores[k] > SCORE]
    segments, table, stuff = np.full(masks.shape[1:], -1), {}, {}
    if not kept:
        return segments, table
    winner = np.array(kept)[np.argmax([scores[k] * masks[k] for k in kept], axis=0)]
    for k in kept:
        mask = where & (masks[k] >= 0.5)
        won = where & (winner == k)
        own = won & mask if rule == "mask2former" else won
        if not mask.any() or not own.any() or won.sum() / mask.sum() < OVERLAP:
            continue
        first = k if THINGS[classes[k]] else stuff.setdefault(classes[k], k)
        segments[own] = first
        table[first] = classes[k]
    return segments, table


@pytest.mark.parametrize("rule", ["mask2former", "maskformer"])
def test_the_authors_loop_over_queries(rule):
    drawn = [_draw(seed) for seed in range(100)]
    where = np.random.default_rng(0).random((len(drawn), *SHAPE)) < 0.8
    where[::2] = True
    result = fuse(*map(np.stack, zip(*drawn, strict=True)), where=where, rule=rule)
    for i, logits in enumerate(drawn):
        segments, table = _loop(*logits, where[i], rule)
        np.testing.assert_array_equal(result.segments[i], segments)
        rows = np.flatnonzero(result.valid[i]).tolist()
        assert dict(zip(rows, result.classes[i, rows].tolist(), strict=True)) == table


def test_masks_come_from_the_part_of_the_canvas_that_the_picture_fills():
    drawn = [_draw(seed, shape=(4, 5)) for seed in range(8)]
    class_logits, mask_logits = map(np.stack, zip(*drawn, strict=True))
    on_canvas = resize(mask_logits[..., None], (16, 20))[..., :11, :13, :]
    expected = fuse(class_logits, resize(on_canvas, SHAPE)[..., 0])
    result = fuse(class_logits, mask_logits, canvas=(16, 20), size=(11, 13))
    assert expected.valid.sum() > 4
    np.testing.assert_array_equal(result.segments, expected.segments)


def test_no_query_left_is_void():
    class_logits = jnp.zeros((2, 3, NONE + 1)).at[0, :, NONE].set(9)
    result = fuse(class_logits, jnp.ones((2, 3, 4, 5)))
    assert (result.segments == -1).all()
    assert not result.valid.any()
    assert not result.scores.any()


def test_each_piece_of_a_thing_stays_a_segment_and_stuff_becomes_one():
    columns = np.arange(6)
    masks = np.where(columns // 2 == np.arange(3)[:, None], 9.0, -9.0)[:, None]
    class_logits = 9 * np.eye(NONE + 1)[[[1] * 3, [2] * 3]]
    result = panoptic_segmentation(class_logits, np.stack([masks] * 2), THINGS, (1, 6))
    np.testing.assert_array_equal(result.segments[:, 0], [[0, 0, 1, 1, 2, 2], [0] * 6])
    np.testing.assert_array_equal(result.valid, [[True, True, True], [True, False, False]])


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.75, 0.8, 0.9])
def test_transformers_compares_a_float32_share_with_a_python_float(threshold):
    """Strictly: a share that equals the threshold is enough where float32 rounds it up."""
    equal = round(20 * threshold)
    won = np.array([equal - 1, equal, equal + 1])
    class_logits = np.tile(np.float32([[5, 0, 0], [9, 0, 0]]), (3, 1, 1))
    mask_logits = np.full((3, 2, 1, 20), 9, np.float32)
    mask_logits[:, 1, 0] = np.where(np.arange(20) < won[:, None], -9, 19)
    result = panoptic_segmentation(
        class_logits,
        mask_logits,
        np.array([True, True]),
        (1, 20),
        rule="transformers",
        score_threshold=0.5,
        overlap_threshold=threshold,
    )
    expected = [float(np.float32(n) / np.float32(20)) > threshold for n in won]
    assert expected[0] is False
    assert expected[2] is True
    np.testing.assert_array_equal(result.valid[:, 0], expected)


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_arguments_are_named():
    class_logits, masks = jnp.zeros((3, NONE + 1)), jnp.zeros((3, 4, 5))
    with pytest.raises(ValueError, match=r"class_logits: expected .* got \(3, 1\)"):
        fuse(class_logits[:, :1], masks)
    with pytest.raises(ValueError, match=r"mask_logits: expected .* got \(2, 4, 5\)"):
        fuse(class_logits, masks[:2])
    with pytest.raises(ValueError, match=r"rule: expected one of mask2former.* got 'mask3former'"):
        fuse(class_logits, masks, rule="mask3former")
    with pytest.raises(ValueError, match=r"size: expected .* got \(5, 6\)"):
        fuse(class_logits, masks, size=(5, 6))
    with pytest.raises(ValueError, match=r"things: expected shape \(4,\), got \(2,\)"):
        panoptic_segmentation(class_logits, masks, THINGS[:2], SHAPE)
    with pytest.raises(TypeError, match="things: expected bool, got int64"):
        panoptic_segmentation(class_logits, masks, THINGS.astype(np.int64), SHAPE)
