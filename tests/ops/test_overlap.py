import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops import (
    box_iou,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
    mask_iou,
)

KINDS = (box_iou, generalized_box_iou, distance_box_iou, complete_box_iou)
all_kinds = jax.jit(lambda a, b: jnp.stack([kind(a, b) for kind in KINDS]))
matched = jax.jit(lambda a, b: jnp.stack([kind(a, b, pairwise=False) for kind in KINDS]))
gradients = jax.jit(jax.grad(lambda a, b: all_kinds(a, b).sum(), argnums=(0, 1)))


@st.composite
def boxes(draw, *, whole=False):
    """`[3, 4]` with a few degenerate ones, the coordinates from 0 to 8."""
    numbers = st.integers(0, 8) if whole else st.floats(0, 8, width=32)
    corners = draw(hnp.arrays(np.float32, (3, 2, 2), elements=numbers))
    return np.sort(corners, axis=1).reshape(3, 4)


def _raster(boxes):
    """The pixels that each box of whole numbers covers."""
    rows, columns = np.mgrid[:8, :8]
    x0, y0, x1, y1 = (boxes[:, i, None, None] for i in range(4))
    return (x0 <= columns) & (columns < x1) & (y0 <= rows) & (rows < y1)


@given(boxes(whole=True), boxes(whole=True))
def test_iou_counts_pixels(a, b):
    np.testing.assert_array_equal(all_kinds(a, b)[0], mask_iou(_raster(a), _raster(b)))


@given(boxes(), boxes())
def test_bounds_and_symmetry(a, b):
    iou, generalized, distance, complete = np.asarray(all_kinds(a, b), np.float64)
    assert (iou >= 0).all()
    assert (iou <= 1).all()
    rounding = 1e-5
    assert (generalized <= iou + rounding).all()
    assert (generalized >= -1 - rounding).all()
    assert (distance <= iou + rounding).all()
    assert (distance >= -1 - rounding).all()
    assert (complete <= distance + rounding).all()
    assert (complete >= -2 - rounding).all()
    np.testing.assert_allclose(
        all_kinds(b, a).mT, np.stack([iou, generalized, distance, complete]), atol=rounding
    )


def test_a_proper_box_overlaps_itself_fully():
    a = np.array([[1, 2, 4, 9], [-5, -5, -1, -2], [0, 0, 1000, 1]], np.float32)
    np.testing.assert_allclose(np.diagonal(all_kinds(a, a), axis1=1, axis2=2), 1, rtol=1e-6)


def test_closed_forms():
    """Two unit squares, 3 apart; then a square inside one of twice its side."""
    a = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    b = np.array([[4.0, 0.0, 5.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    rows = matched(a, b)
    np.testing.assert_allclose(rows[0], [0, 1 / 4])
    np.testing.assert_allclose(rows[1], [-3 / 5, 1 / 4])
    np.testing.assert_allclose(rows[2], [-16 / 26, 1 / 4 - 0.5 / 8], rtol=1e-6)
    np.testing.assert_allclose(rows[3], rows[2], rtol=1e-6)


def test_complete_iou_punishes_another_shape():
    """Boxes of one centre, 1×3 and 3×1: IoU 1/5, the angles arctan ⅓ and arctan 3."""
    a, b = np.array([[1.0, 0.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 3.0, 2.0]])
    v = (2 / np.pi * (np.arctan(3) - np.arctan(1 / 3))) ** 2
    expected = 1 / 5 - v**2 / (1 - 1 / 5 + v)
    np.testing.assert_allclose(complete_box_iou(a, b)[0, 0], expected, rtol=1e-6)


def test_matched_rows_are_the_diagonal():
    rng = np.random.default_rng(0)
    start, sides = rng.uniform(0, 5, (2, 2, 2, 3, 2))
    a, b = np.concatenate([start, start + sides], axis=-1)
    diagonal = np.diagonal(all_kinds(a, b), axis1=-2, axis2=-1)
    np.testing.assert_allclose(matched(a, b), diagonal, rtol=1e-6)


@pytest.mark.parametrize("side", [0.0, 1e-30, 1e-15])
def test_gradients_of_boxes_with_hardly_a_side_are_finite(side):
    """Their areas underflow; so would the squares in the derivative of an angle."""
    thin = jnp.array([[0, 0, side, side], [0, 0, side, 1], [0, 0, 1, side]], jnp.float32)
    for gradient in gradients(thin, thin[::-1]):
        assert np.isfinite(gradient).all()


def test_sets_may_be_empty():
    for kind in KINDS:
        assert kind(jnp.zeros((0, 4)), jnp.zeros((3, 4))).shape == (0, 3)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    two, three = np.zeros((2, 4)), np.zeros((3, 4))
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"b: expected .*got \(3, 4\)"):
            kind(two, three, pairwise=False)
        with pytest.raises(ValueError, match=r"a, b: expected .*got \(1, 2, 4\), \(3, 4\)"):
            kind(two[None], three)
        with pytest.raises(ValueError, match=r"b: expected .*got \(3, 3\)"):
            kind(two, three[:, :3])
