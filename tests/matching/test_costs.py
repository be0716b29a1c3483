"""Every cost is a loss of one pair, as a loop over all pairs has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from segjax.matching import (
    class_cost,
    focal_class_cost,
    giou_cost,
    l1_cost,
    linear_sum_assignment,
    mask_cross_entropy_cost,
    mask_dice_cost,
    mask_focal_cost,
)

RNG = np.random.default_rng(0)
LOGITS = 4 * RNG.normal(size=(3, 20)).astype(np.float32)
TARGETS = RNG.random((2, 20)) < 0.4
VALID = RNG.random(20) < 0.7


def _by_pairs(loss):
    """`loss` of every prediction with every target, over the valid points."""
    return [[loss(x[VALID], y[VALID]) for y in TARGETS] for x in LOGITS]


def test_mask_costs_are_the_losses_of_each_pair():
    pairs = {
        mask_cross_entropy_cost: lambda x, y: losses.sigmoid_cross_entropy(x, y).mean(),
        mask_focal_cost: lambda x, y: losses.sigmoid_focal_loss(x, y, alpha=0.25).mean(),
        mask_dice_cost: lambda x, y: losses.dice_loss(jax.nn.sigmoid(x), y, smooth=1.0),
    }
    spoilt = np.where(VALID, LOGITS, np.nan)
    for cost, loss in pairs.items():
        actual = cost(spoilt, TARGETS.astype(np.float32), where=VALID)
        np.testing.assert_allclose(actual, _by_pairs(loss), rtol=1e-5)


def test_certain_masks_cost_nothing():
    """No rounding is left of logits of ±1e4, where one product for both terms would leave some."""
    certain = np.where(TARGETS, 1e4, -1e4).astype(np.float32)
    assert np.all(np.diag(mask_cross_entropy_cost(certain, TARGETS)) == 0)


def test_class_costs():
    logits, classes = LOGITS[:, :5], np.array([4, 0], np.int32)
    np.testing.assert_array_equal(
        class_cost(logits, classes), -jax.nn.softmax(logits, axis=-1)[:, classes]
    )
    one, none = jnp.ones(logits.shape), jnp.zeros(logits.shape)
    change = losses.sigmoid_focal_loss(logits, one, alpha=0.25) - losses.sigmoid_focal_loss(
        logits, none, alpha=0.25
    )
    np.testing.assert_allclose(focal_class_cost(logits, classes), change[:, classes], rtol=1e-5)


@pytest.mark.parametrize("cost", [class_cost, focal_class_cost])
def test_a_class_that_there_is_not_costs_nothing(cost):
    """Nor has it a gradient; in 64 bits on the host it does not become another."""
    classes = np.array([-1, 3, 2**32 + 1, 1])
    costs = cost(LOGITS[:, :3], classes)
    np.testing.assert_array_equal(costs[:, :3], 0)
    assert (costs[:, 3] != 0).all()
    gradient = jax.grad(lambda x: cost(x, classes)[:, :3].sum())(LOGITS[:, :3])
    np.testing.assert_array_equal(gradient, 0)


def test_box_costs_of_known_boxes():
    """A box with itself, with one twice as tall, and with one as far off as it is wide."""
    boxes = jnp.array([[0.0, 0.0, 1.0, 1.0]])
    targets = jnp.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 2.0], [2.0, 0.0, 3.0, 1.0]])
    np.testing.assert_allclose(l1_cost(boxes, targets), [[0, 1, 4]])
    np.testing.assert_allclose(giou_cost(boxes, targets), [[-1, -1 / 2, 1 / 3]], rtol=1e-6)


def test_shuffled_masks_find_their_targets():
    """The costs together, of noisy copies: the assignment is the shuffle."""
    masks = RNG.random((6, 50)) < 0.3
    order = RNG.permutation(6)
    logits = 2.0 * (2 * masks[order] - 1) + RNG.normal(size=masks.shape)
    cost = mask_dice_cost(logits, masks) + mask_cross_entropy_cost(logits, masks)
    np.testing.assert_array_equal(linear_sum_assignment(cost)[1], order)


def test_masks_hold_no_array_of_all_pairs_and_points():
    n, m, p = 40, 30, 1000
    shapes = (jax.ShapeDtypeStruct((rows, p), jnp.float32) for rows in (n, m))
    memory = jax.jit(mask_cross_entropy_cost).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * n * m * p / 4


def test_errors_name_the_argument(unchecked_shapes):
    with pytest.raises(ValueError, match="targets: expected"):
        mask_dice_cost(jnp.zeros((3, 4)), jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match="targets: expected"):
        l1_cost(jnp.zeros((1, 3, 4)), jnp.zeros((2, 2, 4)))
    with pytest.raises(ValueError, match="classes: expected"):
        class_cost(jnp.zeros((1, 3, 4)), jnp.zeros((2, 2), int))
    with pytest.raises(ValueError, match=r"alpha: expected .*got 2"):
        mask_focal_cost(jnp.zeros((3, 4)), jnp.zeros((2, 4)), alpha=2)
    with pytest.raises(ValueError, match=r"gamma: expected .*got 0"):
        focal_class_cost(jnp.zeros((3, 4)), jnp.zeros(2, int), gamma=0)
