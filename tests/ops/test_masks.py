import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops import box_area, mask_iou, masks_to_boxes, paste_masks

paste = jax.jit(lambda masks, boxes: paste_masks(masks, boxes, (6, 9)))


@given(hnp.arrays(bool, (2, 3, 4, 5)))
def test_masks_to_boxes_finds_the_least_and_greatest_pixels(masks):
    boxes = np.asarray(masks_to_boxes(masks))
    for index in np.ndindex(2, 3):
        rows, columns = np.nonzero(masks[index])
        expected = (
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if rows.size else [0] * 4
        )
        np.testing.assert_array_equal(boxes[index], expected)


@given(st.integers(0, 3), st.integers(0, 4), st.integers(1, 4), st.integers(1, 5))
def test_a_full_box_of_pixels_has_their_number_as_area(row, column, height, width):
    mask = np.zeros((1, 8, 10), bool)
    mask[0, row : row + height, column : column + width] = True
    assert box_area(masks_to_boxes(mask))[0] == height * width


@given(hnp.arrays(bool, (2, 3, 4, 5)), hnp.arrays(bool, (2, 2, 4, 5)))
def test_mask_iou_counts_pixels(a, b):
    both = (a[:, :, None] & b[:, None]).sum((-2, -1))
    either = (a[:, :, None] | b[:, None]).sum((-2, -1))
    np.testing.assert_allclose(mask_iou(a, b), both / np.maximum(either, 1), rtol=1e-6)


def test_mask_iou_of_pictures_that_are_counted_in_parts():
    a, b = (np.random.default_rng(seed).random((3, 150, 230)) < 0.4 for seed in range(2))
    both, either = (f(a[:, None], b).sum((-2, -1)) for f in (np.logical_and, np.logical_or))
    np.testing.assert_allclose(mask_iou(a, b), both / either, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (0, 0)])
def test_mask_iou_of_no_masks(shape):
    a, b = (np.zeros((n, 4, 5), bool) for n in shape)
    assert mask_iou(a, b).shape == shape


def test_a_mask_that_fits_its_box_is_shown_as_it_is():
    """With its rim it has as many pixels as the grown and rounded box; the image cuts it off."""
    mask = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    for x, y in [(0, 0), (4, 1), (6, 3), (20, 0)]:
        centre, half = np.array([x + 2.5, y + 2.5]), 3 / 5 * 2.25
        box = np.concatenate([centre - half, centre + half])
        canvas = np.zeros((30, 30))
        canvas[y + 1 : y + 4, x + 1 : x + 4] = mask
        np.testing.assert_allclose(paste(mask[None], box[None])[0], canvas[:6, :9], atol=1e-5)


def test_pasting_treats_rows_as_columns():
    rng = np.random.default_rng(0)
    masks = rng.random((2, 3, 5))
    boxes = np.array([[1.0, 2.0, 7.5, 5.0], [-2.0, -1.0, 4.0, 2.5]])
    swapped = paste_masks(masks.mT, boxes[:, [1, 0, 3, 2]], (9, 6))
    np.testing.assert_allclose(paste(masks, boxes), swapped.mT, atol=1e-6)


def test_nothing_is_pasted_where_the_box_is_not():
    outside = np.array([[20.0, 0.0, 30.0, 5.0], [-9.0, -9.0, -5.0, -5.0], [5.0, 5.0, 1.0, 1.0]])
    assert not paste(np.ones((3, 2, 2)), outside).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: masks_to_boxes(np.zeros((4, 4), bool)), ValueError, "masks: expected"),
        (lambda: masks_to_boxes(np.zeros((1, 4, 4))), TypeError, r"masks: expected .*got float64"),
        (
            lambda: mask_iou(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 5), bool)),
            ValueError,
            r"b: expected .*got \(1, 4, 5\)",
        ),
        (
            lambda: paste_masks(np.zeros((2, 4, 4)), np.zeros((3, 4)), (5, 5)),
            ValueError,
            r"masks: expected .*got \(2, 4, 4\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
