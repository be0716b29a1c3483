import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops import convert_boxes, decode_boxes, encode_boxes

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
encode = jax.jit(lambda a, b: encode_boxes(a, b, weights=WEIGHTS))
decode = jax.jit(lambda a, b: decode_boxes(a, b, weights=WEIGHTS))


@st.composite
def boxes(draw):
    """`[3, 4]`, sides from 1 to 20."""
    centre = draw(hnp.arrays(np.float32, (3, 2), elements=st.floats(-50, 50, width=32)))
    sides = draw(hnp.arrays(np.float32, (3, 2), elements=st.floats(1, 20, width=32)))
    return np.asarray(convert_boxes(np.concatenate([centre, sides], -1), "cxcywh", "xyxy"))


@given(boxes(), boxes())
def test_decoding_undoes_encoding(reference, proposals):
    decoded = decode(encode(reference, proposals), proposals)
    np.testing.assert_allclose(decoded, reference, atol=1e-3)


def test_a_box_twice_as_wide_and_moved_by_half():
    proposal, reference = np.array([0.0, 0.0, 4.0, 10.0]), np.array([0.0, 5.0, 8.0, 15.0])
    expected = [10 * 0.5, 10 * 0.5, 5 * np.log(2), 0]
    np.testing.assert_allclose(encode(reference, proposal), expected, rtol=1e-6)


def test_scales_are_cut():
    proposal = np.array([-8.0, -8.0, 8.0, 8.0])
    largest = [-500, -500, 500, 500]
    decoded = decode_boxes(np.array([0.0, 0.0, 100.0, 4.14]), proposal)
    np.testing.assert_allclose(decoded, largest, rtol=1e-5)


def test_boxes_without_sides_give_zeros():
    point, proper = np.array([3.0, 3.0, 3.0, 3.0]), np.array([0.0, 0.0, 2.0, 2.0])
    np.testing.assert_array_equal(encode(proper, point), np.zeros(4))
    np.testing.assert_array_equal(encode(point, proper), [20 * 0.5, 20 * 0.5, 0, 0])
    np.testing.assert_array_equal(decode(np.ones(4), point), point)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"reference: expected .*got \(2, 4\)"):
        encode_boxes(np.zeros((2, 4)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"deltas: expected .*got \(3, 8\)"):
        decode_boxes(np.zeros((3, 8)), np.zeros((3, 4)))
