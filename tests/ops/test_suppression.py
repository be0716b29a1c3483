import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops import batched_nms, box_iou, mask_iou, matrix_nms, nms, soft_nms, suppression

NUMBER = 11
FORMS = {"rows": suppression._suppress_by_rows, "tiles": suppression._suppress_by_tiles}


def _by_score(scores):
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def _nms(boxes, scores, classes, threshold, where):
    """Greedy suppression as everyone knows it."""
    keep = np.zeros(len(scores), bool)
    iou = np.asarray(box_iou(boxes, boxes))
    for i in _by_score(scores):
        before = keep & (classes == classes[i])
        keep[i] = where[i] and not (before & (iou[:, i] > np.float32(threshold))).any()
    return keep


@st.composite
def detections(draw):
    """Boxes on a coarse grid, so with copies, shared borders and no area; scores with ties."""
    start = draw(hnp.arrays(np.float32, (NUMBER, 2), elements=st.integers(-4, 1)))
    sides = draw(hnp.arrays(np.float32, (NUMBER, 2), elements=st.integers(0, 3)))
    boxes = np.concatenate([start, start + sides], axis=-1)
    scores = st.sampled_from([-1.5, -0.0, 0.0, 1e-30, 0.25, 0.5, 1.0, 3e38])
    classes = draw(hnp.arrays(np.int32, NUMBER, elements=st.integers(0, 2)))
    where = draw(hnp.arrays(bool, NUMBER))
    return boxes, draw(hnp.arrays(np.float32, NUMBER, elements=scores)), classes, where


@pytest.fixture(scope="module", params=itertools.product(FORMS, [0.0, 1 / 3, 1.0]), ids=str)
def suppress(request):
    """`batched_nms` in one of its forms, and its threshold. The few boxes fill several blocks."""
    form, threshold = request.param

    def suppress(boxes, scores, classes, where):
        return batched_nms(boxes, scores, classes, iou_threshold=threshold, where=where)

    shapes = {"float32": [(NUMBER, 4), (NUMBER,)], "int32": [(NUMBER,)], "bool": [(NUMBER,)]}
    arguments = [jax.ShapeDtypeStruct(s, dtype) for dtype, of in shapes.items() for s in of]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "_suppress", FORMS[form])
        patch.setattr(suppression, "_CHUNK", 4)
        patch.setattr(suppression, "_TILE", 4)
        return jax.jit(suppress).lower(*arguments).compile(), threshold


@given(drawn=detections())
def test_nms_is_the_plain_loop(suppress, drawn):
    compiled, threshold = suppress
    boxes, scores, classes, where = drawn
    expected = _nms(boxes, scores, classes, threshold, where)
    np.testing.assert_array_equal(compiled(boxes, scores, classes, where), expected)


def _crowd(*shape):
    rng = np.random.default_rng(0)
    start, sides = rng.uniform(-100, 100, (*shape, 2)), rng.uniform(5, 60, (*shape, 2))
    return np.float32(np.concatenate([start, start + sides], -1)), np.float32(rng.random(shape))


@pytest.mark.parametrize("suppress_in", FORMS.values(), ids=FORMS)
def test_nms_of_crowds(suppress_in, monkeypatch):
    """A batch of as many boxes as fill several blocks of the usual size."""
    monkeypatch.setattr(suppression, "_suppress", suppress_in)
    boxes, scores = _crowd(2, 600)
    keep = jax.jit(jax.vmap(functools.partial(nms, iou_threshold=0.3)))(boxes, scores)
    alike, everywhere = np.zeros(600), np.ones(600, bool)
    for i in range(2):
        expected = _nms(boxes[i], scores[i], alike, 0.3, everywhere)
        assert 0 < expected.sum() < 600
        np.testing.assert_array_equal(keep[i], expected)


def test_classes_far_apart_do_not_blur_the_boxes():
    """Added to the coordinates, such a class would round these boxes to the same."""
    boxes = np.array([[0, 0, 1, 1], [0.6, 0, 1.6, 1], [0.6, 0, 1.6, 1]], np.float32)
    scores, classes = np.array([0.9, 0.8, 0.7], np.float32), np.full(3, 2**30)
    keep = batched_nms(boxes, scores, classes, iou_threshold=0.5)
    np.testing.assert_array_equal(keep, [True, True, False])


def test_float64_scores_are_told_apart():
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (2, 1))
    with jax.enable_x64(True):
        keep = nms(boxes, np.array([0.5, 0.5 + 1e-12]), iou_threshold=0.5)
    np.testing.assert_array_equal(keep, [False, True])


def test_no_gradient_flows_through_what_is_kept():
    boxes, scores = _crowd(4)

    def total(boxes, scores):
        return jnp.sum(scores, where=nms(boxes, scores, iou_threshold=0.5))

    to_boxes, to_scores = jax.grad(total, argnums=(0, 1))(boxes, scores)
    assert not to_boxes.any()
    np.testing.assert_array_equal(to_scores, nms(boxes, scores, iou_threshold=0.5))


def _soft_nms(boxes, scores, where, lower):
    """The loop of the paper's figure 3, which takes the best box out of those that are left."""
    scores, left = np.where(where, scores, 0), list(np.flatnonzero(where))
    iou = np.asarray(box_iou(boxes, boxes))
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        left.remove(best)
        for i in left:
            scores[i] *= lower(iou[best, i])
    return scores


@pytest.mark.parametrize(
    ("method", "lower"),
    [
        ("linear", lambda iou: 1 - iou if iou > 0.4 else 1),
        ("gaussian", lambda iou: np.exp(-(iou**2) / 0.7)),
    ],
)
def test_soft_nms_is_the_plain_loop(method, lower):
    @jax.jit
    def compiled(boxes, scores, where):
        return soft_nms(boxes, scores, method=method, iou_threshold=0.4, sigma=0.7, where=where)

    @given(detections())
    def check(drawn):
        boxes, scores, _, where = drawn
        scores = np.clip(scores, 0, 1)
        expected = _soft_nms(boxes, scores, where, lower)
        np.testing.assert_allclose(compiled(boxes, scores, where), expected, rtol=1e-5)

    check()


@pytest.mark.parametrize(
    ("method", "f"),
    [("linear", lambda x: 1 - x), ("gaussian", lambda x: np.exp(-2 * x**2))],
)
def test_matrix_nms_is_its_formula(method, f):
    compiled = jax.jit(
        lambda masks, scores, classes, where: matrix_nms(
            masks, scores, classes, method=method, where=where
        )
    )

    @given(hnp.arrays(bool, (NUMBER, 2, 3)), detections())
    def check(masks, drawn):
        _, scores, classes, where = drawn
        scores = np.clip(scores, 0, 1)
        iou = np.asarray(mask_iou(masks, masks), np.float64)
        order = [i for i in _by_score(scores) if where[i]]
        expected, most = np.zeros(NUMBER), np.zeros(NUMBER)
        for place, j in enumerate(order):
            before = [i for i in order[:place] if classes[i] == classes[j]]
            most[j] = max((iou[i, j] for i in before), default=0)
            factors = [f(iou[i, j]) / f(most[i]) for i in before if f(most[i]) > 0]
            expected[j] = scores[j] * min(factors, default=1)
        np.testing.assert_allclose(compiled(masks, scores, classes, where), expected, atol=1e-6)

    check()


def test_sets_may_be_empty():
    boxes, row, classes = np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)
    assert nms(boxes, row, iou_threshold=0.5).shape == (0,)
    assert batched_nms(boxes, row, classes, iou_threshold=0.5).shape == (0,)
    assert soft_nms(boxes, row).shape == (0,)
    assert matrix_nms(np.zeros((0, 4, 5), bool), row, classes).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: nms(np.zeros((3, 4)), np.zeros(2), iou_threshold=0.5),
            r"scores: expected .*got \(2,\)",
        ),
        (
            lambda: nms(np.zeros((3, 5)), np.zeros(3), iou_threshold=0.5),
            r"boxes: expected .*got \(3, 5\)",
        ),
        (
            lambda: batched_nms(
                np.zeros((3, 4)), np.zeros(3), np.zeros((3, 1), int), iou_threshold=0.5
            ),
            r"classes: expected .*got \(3, 1\)",
        ),
        (
            lambda: soft_nms(np.zeros((3, 4)), np.zeros(3), method="hard"),
            r"method: expected .*got 'hard'",
        ),
        (lambda: soft_nms(np.zeros((3, 4)), np.zeros(3), sigma=0.0), r"sigma: expected .*got 0.0"),
        (
            lambda: matrix_nms(np.zeros((3, 2, 2), bool), np.zeros(2), np.zeros(3, int)),
            r"scores: expected .*got \(2,\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
