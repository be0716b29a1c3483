import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops import label_edges

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


def test_a_batch_has_no_edges_between_its_images():
    labels = np.stack([np.zeros((3, 3), np.int32), np.ones((3, 3), np.int32)])
    assert not label_edges(labels).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: label_edges(np.zeros(4, int)), ValueError, "labels has shape"),
        (
            lambda: label_edges(np.zeros((4, 4), int), where=np.ones(3, bool)),
            ValueError,
            r"where has shape \(3,\); due is one that broadcasts to \(4, 4\)",
        ),
        (
            lambda: label_edges(np.zeros((4, 4), int), where=np.ones((4, 4))),
            TypeError,
            "where is float64",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
