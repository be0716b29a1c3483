"""Losses of detection by proposals: what counts, what is degenerate, and who learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax.losses import box_head_loss, mask_head_loss, rpn_loss
from segjax.ops import encode_boxes
from segjax.typing import Instances

IMAGES, PROPOSALS, OBJECTS, CLASSES = 2, 5, 2, 3
SIDE, SHAPE = 4, (8, 10)


def _arrays():
    """What the heads give, and proposals, matches and objects: the first image has none."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 4, (IMAGES, PROPOSALS + OBJECTS, 2))
    boxes = np.concatenate([start, start + rng.uniform(1, 4, start.shape)], axis=-1)
    boxes = boxes.astype(np.float32)
    sizes = {
        "logits": (),
        "anchor_deltas": (4,),
        "class_logits": (CLASSES + 1,),
        "deltas": (CLASSES + 1, 4),
        "mask_logits": (SIDE, SIDE, CLASSES + 1),
    }
    outputs = {
        name: rng.normal(size=(IMAGES, PROPOSALS, *size)).astype(np.float32)
        for name, size in sizes.items()
    }
    targets = Instances(
        boxes=boxes[:, PROPOSALS:],
        classes=np.array([[0, 0], [2, 0]], np.int32),
        valid=np.array([[False, False], [True, True]]),
        masks=rng.random((IMAGES, OBJECTS, *SHAPE)) < 0.5,
    )
    matches = np.array([[-1, -1, -1, -2, -1], [0, 1, -1, -2, 0]], np.int32)
    return outputs, boxes[:, :PROPOSALS], matches, targets


def _terms(outputs, proposals, matches, targets, where):
    common = proposals, matches, targets
    return {
        **rpn_loss(outputs["logits"], outputs["anchor_deltas"], *common, where=where),
        **box_head_loss(outputs["class_logits"], outputs["deltas"], *common, where=where),
        **mask_head_loss(outputs["mask_logits"], *common, where=where),
    }


@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def _objective(outputs, *arguments):
    terms = _terms(outputs, *arguments)
    return sum(term.value for term in terms.values()), terms


def _run(outputs, proposals, matches, targets, where=None):
    """Compiled once for the tests below."""
    where = np.ones(matches.shape, bool) if where is None else where
    (_, terms), gradients = _objective(outputs, proposals, matches, targets, where)
    return terms, gradients


def test_weights_count_what_was_sampled():
    outputs, proposals, matches, targets = _arrays()
    where = np.ones(matches.shape, bool)
    where[1, 1] = False
    terms, _ = _run(outputs, proposals, matches, targets, where)
    weights = {name: float(term.weight) for name, term in terms.items()}
    assert weights == {"objectness": 7, "rpn_box": 7, "class": 7, "box": 7, "mask": 2}


def test_what_is_not_sampled_may_be_anything():
    """Neither a proposal that `where` leaves out nor one matched with -2 changes a bit."""
    outputs, proposals, matches, targets = _arrays()
    where = np.ones(matches.shape, bool)
    where[1, 1] = False
    expected = _run(outputs, proposals, matches, targets, where)
    left_out = ~where | (matches == -2)

    def spoil(array):
        return np.where(left_out.reshape(*left_out.shape, *[1] * (array.ndim - 2)), np.nan, array)

    spoilt = jax.tree.map(spoil, outputs)
    actual = _run(spoilt, spoil(proposals), matches, targets, where)
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        assert_array_equal(a, b)
    for gradient in actual[1].values():
        assert_array_equal(np.asarray(gradient)[left_out], 0)


@pytest.mark.parametrize("unknown", [-1, CLASSES, 255])
def test_proposals_of_objects_of_no_class_do_not_count(unknown):
    """In the heads' losses they are as those that were not sampled."""
    outputs, proposals, matches, targets = _arrays()
    where = np.ones(matches.shape, bool)
    where[1, 1] = False
    expected = _run(outputs, proposals, matches, targets, where)
    classes = targets.classes.copy()
    classes[1, 1] = unknown
    actual = _run(outputs, proposals, matches, dataclasses.replace(targets, classes=classes))
    heads = ("class", "box", "mask"), ("class_logits", "deltas", "mask_logits")
    for a, b, names in zip(actual, expected, heads, strict=True):
        for name in names:
            jax.tree.map(assert_array_equal, a[name], b[name])


def test_only_positives_and_their_class_learn_boxes_and_masks():
    outputs, proposals, matches, targets = _arrays()
    _, gradients = _run(outputs, proposals, matches, targets)
    classes = np.take_along_axis(targets.classes, np.maximum(matches, 0), axis=-1)
    learns = (matches >= 0)[..., None] & (classes[..., None] + 1 == np.arange(CLASSES + 1))
    assert_array_equal((np.asarray(gradients["deltas"]) != 0).any(-1), learns)
    assert_array_equal((np.asarray(gradients["mask_logits"]) != 0).any((2, 3)), learns)
    assert_array_equal((np.asarray(gradients["anchor_deltas"]) != 0).any(-1), matches >= 0)


def test_void_pixels_neither_count_nor_learn():
    """A bin that reads a void pixel has no part in the mean; the mask there may be anything."""
    box, bins = jnp.array([[1.0, 2.0, 5.0, 6.0]]), (1, 4, 4, 2)
    logits = np.random.default_rng(1).normal(size=bins).astype(np.float32)
    pixels = np.ones(SHAPE, bool)
    pixels[3, 2] = False
    masks = np.random.default_rng(2).random((1, *SHAPE)) < 0.5

    @functools.partial(jax.value_and_grad, argnums=0)
    def loss(logits, masks, pixels):
        target = Instances(box, jnp.array([0]), jnp.array([True]), masks=masks)
        return mask_head_loss(logits, box, jnp.array([0]), target, pixels=pixels)["mask"].value

    value, gradient = loss(logits, masks, pixels)
    learns = np.ones((4, 4), bool)
    learns[:2, :2] = False  # their samples lie at 1.5 and 2.5, 2.5 and 3.5: half a pixel from both
    assert_array_equal(np.asarray(gradient)[0, :, :, 1] != 0, learns)
    assert_array_equal(loss(logits, masks ^ ~pixels, pixels)[0], value)
    _, plain = loss(logits, masks, None)
    shares = np.asarray(gradient * learns.sum())[0, learns, 1]
    assert_allclose(shares, np.asarray(plain * 16)[0, learns, 1], rtol=1e-5)
    value, gradient = loss(logits, masks, np.zeros(SHAPE, bool))
    assert value == 0 == np.abs(gradient).sum()


def test_background_alone_trains():
    """A batch without objects: there is nothing to find, and that is learnt."""
    outputs, proposals, matches, targets = _arrays()
    targets = dataclasses.replace(targets, boxes=np.full_like(targets.boxes, np.nan))
    background = np.full_like(matches, -1)
    terms, gradients = _run(outputs, proposals, background, targets)
    assert terms["mask"].value == terms["box"].value == terms["rpn_box"].value == 0
    assert_allclose(terms["objectness"].value, np.logaddexp(0, outputs["logits"]).mean(), rtol=1e-5)
    assert (gradients["logits"] > 0).all()
    assert (gradients["class_logits"][..., 0] < 0).all()
    for name in ("anchor_deltas", "deltas", "mask_logits"):
        assert_array_equal(gradients[name], 0)


def test_nothing_sampled_is_no_loss():
    outputs, proposals, matches, targets = _arrays()
    terms, gradients = _run(outputs, proposals, matches, targets, np.zeros(matches.shape, bool))
    assert all(term.value == 0 == term.weight for term in terms.values())
    assert not any(np.any(gradient) for gradient in gradients.values())


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [3, 3, 3, 6], [5, 5, 2, 2], [-40, -40, -20, -20]])
def test_degenerate_boxes_are_finite(box):
    """Points, lines, boxes inside out, or outside the image: of proposals, objects and both."""
    outputs, proposals, matches, targets = _arrays()
    degenerate = lambda boxes: np.broadcast_to(np.array(box, np.float32), boxes.shape)
    spoilt = dataclasses.replace(targets, boxes=degenerate(targets.boxes))
    for choice in (
        (degenerate(proposals), targets),
        (proposals, spoilt),
        (degenerate(proposals), spoilt),
    ):
        results = _run(outputs, choice[0], matches, choice[1])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))


def test_perfect_outputs_cost_nothing():
    outputs, proposals, matches, targets = _arrays()
    boxes = np.take_along_axis(targets.boxes, np.maximum(matches, 0)[..., None], axis=1)
    classes = np.take_along_axis(targets.classes, np.maximum(matches, 0), axis=1)
    labels = np.where(matches >= 0, classes + 1, 0)
    deltas = encode_boxes(boxes, proposals, weights=(10.0, 10.0, 5.0, 5.0))
    perfect = {
        **outputs,
        "logits": np.where(matches >= 0, 50, -50).astype(np.float32),
        "anchor_deltas": np.asarray(encode_boxes(boxes, proposals)),
        "class_logits": (50 * np.eye(CLASSES + 1)[labels]).astype(np.float32),
        "deltas": np.repeat(np.asarray(deltas)[..., None, :], CLASSES + 1, axis=-2),
        "mask_logits": np.full_like(outputs["mask_logits"], 50),
    }
    full = dataclasses.replace(targets, masks=np.ones_like(targets.masks))
    terms, gradients = _run(perfect, proposals, matches, full)
    for term in terms.values():
        assert_allclose(term.value, 0, atol=1e-6)
    assert_allclose(gradients["deltas"], 0, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_smooth_l1(beta):
    """Against its definition, on both sides of the corner."""
    box = np.array([[0, 0, 4, 4]], np.float32)
    target = Instances(box, np.array([0], np.int32), np.array([True]))
    deltas = np.array([[0.25, -0.25, 2.0, 0.0]], np.float32)
    logits, matches = jnp.zeros(1), np.array([0], np.int32)
    term = rpn_loss(logits, deltas, box, matches, target, beta=beta)["rpn_box"]
    expected = 0.25 + 0.25 + 2 if beta == 0 else 2 * 0.25**2 / 1 + 2 - 0.25
    assert_allclose(term.value, expected, rtol=1e-6)


def test_tables_without_rows():
    outputs, proposals, matches, targets = _arrays()
    nothing = jax.tree.map(lambda x: x[:, :0], targets)
    where = np.ones(matches.shape, bool)
    terms = jax.eval_shape(_terms, outputs, proposals, matches, nothing, where)
    assert terms.keys() == {"objectness", "rpn_box", "class", "box", "mask"}
    outputs, proposals, matches, where = jax.tree.map(
        lambda x: x[:, :0], (outputs, proposals, matches, where)
    )
    jax.eval_shape(_terms, outputs, proposals, matches, targets, where)


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_does_not_fit():
    outputs, proposals, matches, targets = _arrays()
    common = proposals, matches, targets
    logits, deltas = outputs["logits"], outputs["anchor_deltas"]
    with pytest.raises(ValueError, match=r"logits: expected .*got \(2, 4\)"):
        rpn_loss(logits[:, 1:], deltas, *common)
    with pytest.raises(ValueError, match=r"deltas: expected .*got \(2, 5, 4, 3\)"):
        box_head_loss(outputs["class_logits"], outputs["deltas"][..., :3], *common)
    with pytest.raises(ValueError, match=r"beta: expected .*got -1.0"):
        rpn_loss(logits, deltas, *common, beta=-1.0)
    without = dataclasses.replace(targets, masks=None)
    with pytest.raises(ValueError, match=r"targets.masks: expected"):
        mask_head_loss(outputs["mask_logits"], proposals, matches, without)
    with pytest.raises(ValueError, match="targets: expected the batch axes"):
        rpn_loss(logits, deltas, proposals, matches, jax.tree.map(lambda x: x[:1], targets))
