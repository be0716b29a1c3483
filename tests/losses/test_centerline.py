import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.losses import cldice_loss, dice_loss

loss = jax.jit(cldice_loss, static_argnames=("iterations", "smooth"))
soft_masks = hnp.arrays(np.float32, (7, 9), elements=st.floats(0, 1, width=32))
hard_masks = hnp.arrays(bool, (7, 9))


def _box(height, width, rows, columns):
    mask = np.zeros((height, width), np.float32)
    mask[rows, columns] = 1
    return mask


@given(hard_masks)
def test_a_perfect_prediction_has_no_loss(mask):
    np.testing.assert_allclose(loss(mask.astype(np.float32), mask), 0, atol=1e-6)


@given(soft_masks, soft_masks, st.sampled_from([0.0, 1.0]))
def test_the_loss_is_in_0_to_1_and_symmetric(p, y, smooth):
    value = loss(p, y, smooth=smooth)
    assert -1e-6 <= value <= 1 + 1e-6
    np.testing.assert_allclose(loss(y, p, smooth=smooth), value, atol=1e-6)


def test_a_gap_counts_and_the_width_does_not():
    road = _box(11, 20, slice(4, 7), slice(None))
    wide = _box(11, 20, slice(3, 8), slice(None))
    broken = road.copy()
    broken[:, 8:12] = 0
    assert dice_loss(wide, road) > dice_loss(broken, road)
    assert cldice_loss(wide, road) == 0
    assert cldice_loss(broken, road) > 0.05


def test_empty_masks():
    """Both empty: no loss, no gradient. One of them: the loss is 1, and leads to the target."""
    nothing, line = jnp.zeros((5, 6)), jnp.zeros((5, 6)).at[2].set(1)
    value, gradient = jax.value_and_grad(cldice_loss)(nothing, nothing)
    assert value == 0
    assert not gradient.any()
    value, gradient = jax.value_and_grad(cldice_loss)(nothing, line)
    assert value == 1
    np.testing.assert_array_equal(gradient < 0, line > 0)
    assert cldice_loss(line, nothing) == 1


def test_one_loss_a_mask():
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 2, 3, 7, 9)).astype(np.float32)
    losses = loss(p, y)
    assert losses.shape == (2, 3)
    np.testing.assert_allclose(losses[1, 2], loss(p[1, 2], y[1, 2]), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: cldice_loss(p, p[1:]), r"targets: expected .*got \(2, 4\)"),
        (lambda p: cldice_loss(p, p, where=p[:2] > 2), "where: expected"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((3, 4), np.float32))
