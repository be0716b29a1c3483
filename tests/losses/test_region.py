import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.losses import dice_loss, jaccard_loss, soft_dice, soft_jaccard

INDICES = (soft_jaccard, soft_dice)
soft_masks = hnp.arrays(np.float32, 8, elements=st.floats(0, 1, width=32))
hard_masks = hnp.arrays(bool, 8)


def _random(seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.uniform(size=(4, 5, 3)).astype(np.float32)
    return probs, rng.random((4, 5, 3)) < 0.4


@given(hard_masks, hard_masks)
def test_of_hard_masks_they_are_the_set_measures(a, b):
    union, total = (a | b).sum(), a.sum() + b.sum()
    jaccard = (a & b).sum() / union if union else 1
    dice = 2 * (a & b).sum() / total if total else 1
    np.testing.assert_allclose(soft_jaccard(a.astype(np.float32), b), jaccard, rtol=1e-6)
    np.testing.assert_allclose(soft_dice(a.astype(np.float32), b), dice, rtol=1e-6)


@given(soft_masks, soft_masks, st.floats(0, 5), st.booleans())
def test_bounds_symmetry_and_order(p, y, smooth, squared):
    options = {"smooth": smooth, "squared": squared}
    jaccard, dice = (float(index(p, y, **options)) for index in INDICES)
    assert 0 <= jaccard <= dice + 1e-6 <= 1 + 2e-6
    for index, value in zip(INDICES, (jaccard, dice), strict=True):
        np.testing.assert_allclose(index(y, p, **options), value, rtol=1e-6)


@given(soft_masks, soft_masks, st.booleans())
def test_dice_follows_from_jaccard(p, y, squared):
    """D = 2J / (1 + J), as for sets."""
    jaccard = soft_jaccard(p, y, squared=squared)
    dice = soft_dice(p, y, squared=squared)
    np.testing.assert_allclose(dice, 2 * jaccard / (1 + jaccard), rtol=1e-5, atol=1e-6)


@given(hnp.arrays(np.float32, 8, elements=st.floats(0.0625, 1, width=32)), hard_masks)
def test_gradients_are_the_quotient_rules(p, y):
    """∂J/∂p = (y (Σp + Σy) − Σpy) / U² and ∂(1 − D)/∂p = (2Σpy − 2y (Σp + Σy)) / (Σp + Σy)²."""
    product, total = (p * y).sum(), p.sum() + y.sum()
    of_jaccard = (y * total - product) / (total - product) ** 2
    of_dice_loss = (2 * product - 2 * y * total) / total**2
    np.testing.assert_allclose(jax.grad(soft_jaccard)(p, y), of_jaccard, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.grad(dice_loss)(p, y), of_dice_loss, rtol=1e-4, atol=1e-6)


@given(soft_masks.filter(lambda p: p.any()))
def test_squared_sums_reach_one_on_soft_targets_and_plain_ones_need_not(y):
    for index in INDICES:
        np.testing.assert_allclose(index(y, y, squared=True), 1, rtol=1e-5)
    half = np.full(4, 0.5, np.float32)
    assert soft_dice(half, half) == 0.5


@pytest.mark.parametrize("loss", [jaccard_loss, dice_loss])
def test_empty_prediction_of_an_empty_target_is_perfect_and_at_rest(loss):
    empty = jnp.zeros((4, 4))
    value, gradient = jax.value_and_grad(loss)(empty, empty)
    assert value == 0
    np.testing.assert_array_equal(gradient, empty)


@pytest.mark.parametrize("loss", [jaccard_loss, dice_loss])
def test_empty_prediction_of_a_target_is_pulled_towards_it(loss):
    target = jnp.array([1, 0])
    value, gradient = jax.value_and_grad(loss)(jnp.zeros(2), target)
    assert value == 1
    assert gradient[0] < 0
    assert gradient[1] == 0


@pytest.mark.parametrize("index", INDICES)
def test_axis_is_as_in_a_sum(index):
    probs, targets = _random()
    by_channel = index(probs, targets, axis=(-3, -2))
    assert by_channel.shape == (3,)
    for c in range(3):
        np.testing.assert_allclose(by_channel[c], index(probs[..., c], targets[..., c]), rtol=1e-6)


@pytest.mark.parametrize("index", INDICES)
def test_where_is_as_if_the_pixels_were_cut_out(index):
    probs, targets = _random()
    where = np.arange(20).reshape(4, 5, 1) % 3 > 0
    kept = where[..., 0]
    np.testing.assert_allclose(
        index(probs, targets, axis=(0, 1), where=where, smooth=0.5, squared=True),
        index(probs[kept], targets[kept], axis=0, smooth=0.5, squared=True),
        rtol=1e-6,
    )


def test_losses_are_one_minus_their_index_with_every_option():
    probs, targets = _random()
    options = {"axis": 1, "where": targets[:1], "smooth": 0.5, "squared": True}
    for loss, index in [(jaccard_loss, soft_jaccard), (dice_loss, soft_dice)]:
        np.testing.assert_allclose(
            loss(probs, targets, **options), 1 - index(probs, targets, **options)
        )


def test_half_precision_counts_more_pixels_than_it_could():
    """float16 ends at 65,504; a mask does not."""
    mask = jnp.ones((300, 300), jnp.float16)
    assert soft_dice(mask, mask) == 1


@pytest.mark.parametrize("function", [soft_jaccard, soft_dice, jaccard_loss, dice_loss])
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(function):
    probs, targets = _random()
    with pytest.raises(ValueError, match=r"targets has shape \(4, 5\); due is that of probs"):
        function(probs, targets[..., 0])
    with pytest.raises(ValueError, match=r"where has shape \(4, 5\)"):
        function(probs, targets, where=targets[..., 0])
    with pytest.raises(TypeError, match="where is int64"):
        function(probs, targets, where=targets.astype(int))
