import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segjax.ops import label_edges, mask_boundary

label_maps = hnp.arrays(np.int32, (4, 5), elements=st.integers(0, 2))
valid_maps = hnp.arrays(bool, (4, 5))


@given(label_maps, valid_maps)
def test_edges_are_the_pixels_with_a_valid_neighbour_of_another_label(labels, where):
    expected = np.zeros(labels.shape, bool)
    for row, column in np.ndindex(*labels.shape):
        for y, x in [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]:
            if 0 <= y < 4 and 0 <= x < 5 and where[row, column] and where[y, x]:
                expected[row, column] |= labels[row, column] != labels[y, x]
    np.testing.assert_array_equal(label_edges(labels, where=where), expected)


@given(label_maps)
def test_edges_do_not_depend_on_the_names_of_the_labels(labels):
    renamed = np.array([7, -3, 100], np.int32)[labels]
    np.testing.assert_array_equal(label_edges(renamed), label_edges(labels))


def _band(**options):
    return mask_boundary(np.ones((4, 4), bool), **options)


def test_a_batch_has_no_edges_between_its_images():
    labels = np.stack([np.zeros((3, 3), np.int32), np.ones((3, 3), np.int32)])
    assert not label_edges(labels).any()


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("width", [1, 3])
@given(hnp.arrays(bool, (9, 11)))
def test_bands_are_scipys_erosions_and_dilations(connectivity, width, mask):
    options = {
        "structure": ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2),
        "iterations": width,
    }
    ours = {"width": width, "connectivity": connectivity}
    inner = mask & ~ndimage.binary_erosion(mask, **options)
    np.testing.assert_array_equal(mask_boundary(mask, **ours), inner)
    outer = ndimage.binary_dilation(mask, **options) & ~mask
    np.testing.assert_array_equal(mask_boundary(mask, side="outer", **ours), outer)


def test_a_fraction_of_the_diagonal_is_rounded_to_a_width():
    mask = np.ones((30, 40), bool)
    for fraction, width in [(0.001, 1), (0.05, 2), (0.051, 3), (0.1, 5)]:
        by_width = mask_boundary(mask, width=width)
        np.testing.assert_array_equal(mask_boundary(mask, fraction=fraction), by_width)


@pytest.mark.parametrize("side", ["inner", "outer"])
@given(hnp.arrays(bool, (9, 11)), hnp.arrays(bool, (9, 11)))
def test_void_is_in_no_band_and_makes_none(side, mask, where):
    band = mask_boundary(mask, width=2, side=side, where=where)
    spoilt = mask_boundary(mask ^ ~where, width=2, side=side, where=where)
    np.testing.assert_array_equal(band, spoilt)
    filled = np.where(where, mask, side == "inner")  # void counts as the eroded region
    np.testing.assert_array_equal(band, mask_boundary(filled, width=2, side=side) & where)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: label_edges(np.zeros(4, int)), ValueError, "labels: expected"),
        (
            lambda: label_edges(np.zeros((4, 4), int), where=np.ones(3, bool)),
            ValueError,
            r"where: expected .*got \(3,\)",
        ),
        (
            lambda: label_edges(np.zeros((4, 4), int), where=np.ones((4, 4))),
            TypeError,
            r"where: expected .*got float64",
        ),
        (lambda: mask_boundary(np.ones(4, bool), width=1), ValueError, "mask: expected"),
        (
            lambda: mask_boundary(np.ones((4, 4)), width=1),
            TypeError,
            r"mask: expected .*got float64",
        ),
        (lambda: _band(), ValueError, r"width, fraction: expected .*got None, None"),
        (lambda: _band(width=1, fraction=0.1), ValueError, "width, fraction: expected"),
        (lambda: _band(width=0), ValueError, r"width: expected .*got 0"),
        (lambda: _band(fraction=0.0), ValueError, r"fraction: expected .*got 0.0"),
        (lambda: _band(width=1, side="both"), ValueError, r"side: expected .*got 'both'"),
        (lambda: _band(width=1, connectivity=5), ValueError, r"connectivity: expected .*got 5"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
