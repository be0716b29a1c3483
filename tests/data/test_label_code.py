import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.data.errors import DataError
from segjax.data.label_code import LabelCode

values = st.lists(st.integers(0, 65535), min_size=2, max_size=20, unique=True)


@given(values, st.data())
def test_decodes_what_was_written(values, data):
    void, classes = values[:1], values[1:]
    labels = np.array(
        data.draw(st.lists(st.integers(-1, len(classes) - 1), min_size=4, max_size=4))
    ).reshape(2, 2)
    written = np.array([*classes, *void])[labels].astype(np.uint16)
    decoded, where = LabelCode.of(classes, void=void)(written)
    np.testing.assert_array_equal(where, labels >= 0)
    np.testing.assert_array_equal(decoded, np.maximum(labels, 0))


@given(values, st.integers(0, 65535), st.integers(0, 3), st.integers(0, 4))
def test_a_value_of_no_class_is_named_with_its_place(values, stranger, row, column):
    mask = np.full((4, 5), values[0], np.uint16)
    mask[row, column] = stranger
    code = LabelCode.of(values, void=[])
    if stranger in values:
        code(mask)
    else:
        with pytest.raises(DataError, match=f"value {stranger} at row {row}, column {column}$"):
            code(mask)


def test_the_message_lists_what_there_is():
    with pytest.raises(DataError, match=r"classes: 0\.\.3, 7; void: 255\)"):
        LabelCode.of([0, 1, 2, 3, 7], void=[255])(np.array([[5]]))


def test_colors_stand_for_values():
    colors = {(255, 0, 0): 4, (0, 0, 255): 9, (0, 0, 0): 255}
    code = LabelCode.of([4, 9], void=[255], colors=colors)
    labels, where = code(np.array([[[0, 0, 255], [255, 0, 0], [0, 0, 0]]], np.uint8))
    assert labels.tolist() == [[1, 0, 0]]
    assert where.tolist() == [[True, True, False]]


def test_a_strange_color_is_named_with_its_place():
    code = LabelCode.of([0], colors={(255, 0, 0): 0})
    mask = np.full((2, 3, 3), (255, 0, 0), np.uint8)
    mask[1, 2] = 254, 0, 0
    with pytest.raises(DataError, match=r"got \(254, 0, 0\) at row 1, column 2"):
        code(mask)


def test_colors_need_a_palette():
    with pytest.raises(DataError, match="a mask of one channel"):
        LabelCode.of([0, 1])(np.zeros((2, 2, 3), np.uint8))
