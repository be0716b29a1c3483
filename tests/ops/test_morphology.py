import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segjax.ops import soft_dilate, soft_erode, soft_skeleton

skeleton = jax.jit(soft_skeleton, static_argnames="iterations")
soft_masks = hnp.arrays(
    np.float32, (7, 9), elements=st.floats(0, 1, width=32, allow_subnormal=False)
)


def _box(height, width, rows, columns):
    mask = np.zeros((height, width), np.float32)
    mask[rows, columns] = 1
    return mask


@given(soft_masks)
def test_erosion_and_dilation_are_scipys(mask):
    cross = ndimage.generate_binary_structure(2, 1)
    eroded = ndimage.grey_erosion(mask, footprint=cross, mode="nearest")
    np.testing.assert_array_equal(soft_erode(mask), eroded)
    dilated = ndimage.grey_dilation(mask, size=(3, 3), mode="nearest")
    np.testing.assert_array_equal(soft_dilate(mask), dilated)


@pytest.mark.parametrize("function", [soft_erode, soft_dilate])
def test_equal_neighbors_share_the_gradient(function):
    gradient = jax.grad(lambda mask: function(mask)[2, 3])(np.full((5, 7), 0.5, np.float32))
    np.testing.assert_allclose(gradient.sum(), 1)
    np.testing.assert_array_equal(gradient, gradient[::-1, ::-1])
    assert (gradient > 0).sum() == (5 if function is soft_erode else 9)


@given(soft_masks)
def test_a_skeleton_lies_within_its_mask(mask):
    result = skeleton(mask, iterations=3)
    assert (result >= 0).all()
    assert (result <= mask + 1e-6).all()


@given(soft_masks)
def test_a_skeleton_turns_with_its_mask(mask):
    for turn in (np.transpose, np.flipud, np.fliplr):
        turned = skeleton(np.ascontiguousarray(turn(mask)), iterations=3)
        np.testing.assert_allclose(turned, turn(skeleton(mask, iterations=3)), atol=1e-6)


@pytest.mark.parametrize("half_width", [0, 1, 2])
def test_the_skeleton_of_a_bar_is_its_middle_once_there_are_enough_iterations(half_width):
    """A bar across the whole image: its ends are outside, which does not erode it."""
    bar = _box(11, 20, slice(5 - half_width, 6 + half_width), slice(None))
    middle = _box(11, 20, slice(5, 6), slice(None))
    np.testing.assert_array_equal(soft_skeleton(bar, iterations=half_width), middle)
    if half_width:
        assert not soft_skeleton(bar, iterations=half_width - 1).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: soft_erode(p[0]), r"probs: expected .*got \(4,\)"),
        (lambda p: soft_dilate(p[0]), r"probs: expected .*got \(4,\)"),
        (lambda p: soft_skeleton(p[0], iterations=1), r"probs: expected .*got \(4,\)"),
        (lambda p: soft_skeleton(p, iterations=-1), r"iterations: expected .*got -1"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((3, 4), np.float32))
