import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops import box_area, clip_boxes, convert_boxes


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-20, 20, width=32)))
def test_clip_boxes_leaves_what_is_inside_and_never_more(boxes):
    clipped = clip_boxes(boxes, (6, 9))
    assert (np.asarray(clipped) >= 0).all()
    assert (np.asarray(clipped) <= [9, 6, 9, 6]).all()
    np.testing.assert_array_equal(clip_boxes(clipped, (6, 9)), clipped)
    assert (box_area(clipped) <= box_area(boxes)).all()


def test_clip_boxes_takes_a_size_for_every_image():
    boxes = jnp.tile(jnp.array([-5.0, 1.0, 50.0, 50.0]), (2, 3, 1))
    sizes = jnp.array([[10, 20], [30, 40]])
    clipped = clip_boxes(boxes, sizes)
    for i in range(2):
        np.testing.assert_array_equal(clipped[i], clip_boxes(boxes[i], tuple(sizes[i].tolist())))


def test_box_area_of_swapped_sides_is_zero():
    swapped = jnp.array([[3.0, 4.0, 1.0, 1.0], [1.0, 4.0, 3.0, 1.0]])
    np.testing.assert_array_equal(box_area(swapped), [0, 0])


def test_box_area_does_not_overflow_in_half_precision():
    assert box_area(jnp.array([0, 0, 1000, 1000], jnp.float16)) == 1e6


def test_box_area_grows_by_the_other_side():
    gradient = jax.grad(box_area)(jnp.array([1.0, 1.0, 3.0, 6.0]))
    np.testing.assert_array_equal(gradient, [-5, -2, 5, 2])


FORMATS = {
    "xyxy": [1.0, 2.0, 5.0, 10.0],
    "xywh": [1.0, 2.0, 4.0, 8.0],
    "cxcywh": [3.0, 6.0, 4.0, 8.0],
}


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_convert_boxes(source, target):
    converted = convert_boxes(np.float16(FORMATS[source]), source, target)
    np.testing.assert_array_equal(converted, np.float16(FORMATS[target]), strict=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: box_area(np.zeros((4, 3))), ValueError, r"boxes: expected .*got \(4, 3\)"),
        (lambda: clip_boxes(np.zeros((1, 3)), (1, 1)), ValueError, "boxes: expected"),
        (lambda: clip_boxes(np.zeros((1, 4)), (1, 1, 3)), ValueError, "shape: expected"),
        (
            lambda: convert_boxes(np.zeros((1, 4)), "xyxy", "yxyx"),
            ValueError,
            r"target: expected .*got 'yxyx'",
        ),
        (
            lambda: convert_boxes(np.zeros((1, 4)), "ltrb", "xyxy"),
            ValueError,
            r"source: expected .*got 'ltrb'",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
