import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, PartitionSpec

from segjax.losses import (
    dice_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    jaccard_loss,
    log_cosh_dice_loss,
    soft_dice,
    soft_jaccard,
    tversky_loss,
)

INDICES = (soft_jaccard, soft_dice)
LOSSES = (jaccard_loss, dice_loss, log_cosh_dice_loss, tversky_loss, focal_tversky_loss)
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
    jaccard_gradient = (y * total - product) / (total - product) ** 2
    dice_gradient = (2 * product - 2 * y * total) / total**2
    np.testing.assert_allclose(jax.grad(soft_jaccard)(p, y), jaccard_gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.grad(dice_loss)(p, y), dice_gradient, rtol=1e-4, atol=1e-6)


@given(soft_masks.filter(lambda p: p.any()))
def test_squared_sums_reach_one_on_soft_targets_and_plain_ones_need_not(y):
    for index in INDICES:
        np.testing.assert_allclose(index(y, y, squared=True), 1, rtol=1e-5)
    half = np.full(4, 0.5, np.float32)
    assert soft_dice(half, half) == 0.5


@pytest.mark.parametrize("loss", LOSSES)
def test_empty_prediction_of_an_empty_target_is_perfect_and_at_rest(loss):
    empty = jnp.zeros((4, 4))
    value, gradient = jax.value_and_grad(loss)(empty, empty)
    assert value == 0
    np.testing.assert_array_equal(gradient, empty)


@pytest.mark.parametrize("loss", LOSSES)
def test_empty_prediction_of_a_target_is_pulled_towards_it(loss):
    target = jnp.array([1, 0])
    value, gradient = jax.value_and_grad(loss)(jnp.zeros(2), target)
    assert value == loss(jnp.zeros(3), jnp.ones(3))  # the same whatever the target's size
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


# Half of the least normal number, which tversky_loss takes where the others do not, is 0 on a CPU.
halvable_masks = hnp.arrays(np.float32, 8, elements=st.just(0.0) | st.floats(2**-60, 1, width=32))


@given(halvable_masks, halvable_masks)
def test_tversky_has_dice_and_jaccard_in_it(p, y):
    for weight, loss in [(0.5, dice_loss), (1.0, jaccard_loss)]:
        np.testing.assert_allclose(
            tversky_loss(p, y, alpha=weight, beta=weight), loss(p, y), atol=1e-6
        )


def test_tversky_weighs_false_positives_by_alpha_and_false_negatives_by_beta():
    target, more, less = jnp.array([1, 1, 0]), jnp.array([1.0, 1, 1]), jnp.array([1.0, 0, 0])
    options = {"alpha": 0.25, "beta": 0.5}
    np.testing.assert_allclose(tversky_loss(more, target, **options), 1 - 2 / (2 + 0.25))
    np.testing.assert_allclose(tversky_loss(less, target, **options), 1 - 1 / (1 + 0.5))


@given(soft_masks, soft_masks, st.floats(0.5, 3))
def test_focal_tversky_is_a_root_of_tversky(p, y, gamma):
    focal = focal_tversky_loss(p, y, gamma=gamma)
    np.testing.assert_allclose(focal**gamma, tversky_loss(p, y), rtol=1e-5, atol=1e-6)


def test_focal_tversky_rests_on_a_perfect_prediction():
    target = jnp.array([1, 0, 1])
    value, gradient = jax.value_and_grad(focal_tversky_loss)(target.astype(float), target)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_log_cosh_dice_is_exact_where_the_loss_is_small():
    """`log cosh L = L²/2 − L⁴/12 …`, where `log(cosh(L))` in float32 is 0."""
    target = jnp.ones(4)
    loss = dice_loss(target * (1 - 1e-3), target)
    assert 0 < loss < 1e-3
    log_cosh = log_cosh_dice_loss(target * (1 - 1e-3), target)
    np.testing.assert_allclose(log_cosh, loss**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(log_cosh_dice_loss(1 - target, target), np.log(np.cosh(1)))


def test_generalized_dice_is_the_sum_over_weighted_classes():
    probs, targets = _random()
    for weighting, power in [("square", 2), ("simple", 1), ("uniform", 0)]:
        weights = targets.sum((0, 1)) ** -float(power)
        overlap = (weights * (probs * targets).sum((0, 1))).sum()
        total = (weights * (probs + targets).sum((0, 1))).sum()
        np.testing.assert_allclose(
            generalized_dice_loss(probs, targets, axis=(0, 1), weighting=weighting),
            1 - 2 * overlap / total,
            rtol=1e-5,
        )


def test_generalized_dice_leaves_absent_classes_out():
    probs, targets = _random()
    targets[..., 1] = False
    value, gradient = jax.value_and_grad(
        lambda probs: generalized_dice_loss(probs, targets, axis=(0, 1), smooth=0.5)
    )(probs)
    present = [0, 2]
    without = generalized_dice_loss(
        probs[..., present], targets[..., present], axis=(0, 1), smooth=0.5
    )
    np.testing.assert_allclose(value, without, rtol=1e-6)
    assert not gradient[..., 1].any()
    nothing = generalized_dice_loss(probs, np.zeros_like(targets), axis=(0, 1))
    assert nothing == 0


def test_generalized_dice_of_one_class_is_dice_with_any_weighting():
    probs, targets = _random()
    for weighting in ("square", "simple", "uniform"):
        np.testing.assert_allclose(
            generalized_dice_loss(
                probs[..., :1], targets[..., :1], axis=(0, 1), smooth=2.0, weighting=weighting
            ),
            dice_loss(probs[..., 0], targets[..., 0], smooth=2.0),
            rtol=1e-6,
        )


@pytest.mark.parametrize(
    "loss",
    [*LOSSES, functools.partial(generalized_dice_loss, axis=(0, 1))],
    ids=[*(loss.__name__ for loss in LOSSES), "generalized_dice_loss"],
)
def test_over_devices_it_is_one_mask(loss):
    """Value, and gradient by a parameter and by the shards, of the whole batch on one device."""
    rng = np.random.default_rng(0)
    targets = rng.random((8, 3, 2)) < 0.4
    features, scale = rng.normal(size=(8, 3, 2)).astype(np.float32), jnp.float32(1.5)

    def objective(scale, features, targets, axis_name=None):
        probs = jax.nn.sigmoid(scale * features)
        return jnp.sum(loss(probs, targets, axis_name=axis_name))

    whole = jax.value_and_grad(objective, (0, 1))
    value, gradients = whole(scale, features, targets)
    on_each = functools.partial(whole, axis_name="batch")

    mesh = jax.make_mesh((4,), ("batch",), (AxisType.Auto,), devices=jax.devices()[:4])
    spec = PartitionSpec("batch")
    sharded = jax.shard_map(
        on_each,
        mesh=mesh,
        in_specs=(PartitionSpec(), spec, spec),
        out_specs=(PartitionSpec(), (PartitionSpec(), spec)),
    )
    for actual, expected in zip(
        jax.tree.leaves(jax.jit(sharded)(scale, features, targets)),
        jax.tree.leaves((value, gradients)),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)

    def reduced(*arguments):
        value, (by_scale, by_features) = on_each(*arguments)
        return jax.lax.pmean((value, by_scale), "batch"), by_features / jax.lax.axis_size("batch")

    mapped = jax.pmap(reduced, "batch", in_axes=(None, 0, 0), devices=jax.devices()[:4])
    (values, by_scale), by_features = mapped(
        scale, features.reshape(4, 2, 3, 2), targets.reshape(4, 2, 3, 2)
    )
    np.testing.assert_allclose(values, np.full(4, value), rtol=1e-4)
    np.testing.assert_allclose(by_scale, np.full(4, gradients[0]), rtol=1e-4)
    np.testing.assert_allclose(by_features.reshape(8, 3, 2), gradients[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_closed_sigmoid_on_an_empty_target_has_no_pull(loss):
    """Probabilities of 1e-27, whose squares float32 does not hold."""
    logits = jnp.full(3, -60.0)
    gradient = jax.grad(lambda logits: loss(jax.nn.sigmoid(logits), jnp.zeros(3)))(logits)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_option():
    probs, targets = _random()
    with pytest.raises(ValueError, match=r"alpha, beta: expected .*got -0.1, 0.7"):
        tversky_loss(probs, targets, alpha=-0.1)
    with pytest.raises(ValueError, match=r"gamma: expected .*got 0"):
        focal_tversky_loss(probs, targets, gamma=0)
    with pytest.raises(ValueError, match=r"axis: expected .*got \(0, -1\)"):
        generalized_dice_loss(probs, targets, axis=(0, -1))
    with pytest.raises(ValueError, match=r"weighting: expected .*got 'cubic'"):
        generalized_dice_loss(probs, targets, axis=(0, 1), weighting="cubic")


@pytest.mark.parametrize("function", [soft_jaccard, soft_dice, *LOSSES])
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(function):
    probs, targets = _random()
    with pytest.raises(ValueError, match=r"targets: expected .*got \(4, 5\)"):
        function(probs, targets[..., 0])
    with pytest.raises(ValueError, match=r"where: expected .*got \(4, 5\)"):
        function(probs, targets, where=targets[..., 0])
    with pytest.raises(TypeError, match=r"where: expected .*got int64"):
        function(probs, targets, where=targets.astype(int))
