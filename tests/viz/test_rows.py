"""Pages of examples: what their panels show, and that all fits."""

import numpy as np
import pytest

from segjax.data.palette import palette
from segjax.data.source import Classes
from segjax.typing import Instances, Panoptic
from segjax.viz import colorize, compare_instances, compare_labels, compare_segments, page

STREET = Classes(("sky", "road", "car"), ((10, 20, 30), (200, 0, 0), (0, 0, 255)))
GREY = np.full((6, 9, 3), 100, np.uint8)


def _row(shape=(2, 3)):
    truth = np.resize([[0, 0, 1], [1, 255, 255]], shape)
    prediction = np.resize([[0, 1, 1], [1, 0, 1]], shape)
    image = np.zeros((*shape, 3))
    return truth, prediction, compare_labels(image, truth, prediction, STREET, where=truth != 255)


def _at_centres(panel, shape=(2, 3)):
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(shape, panel.shape[:2], strict=True)
    )
    return panel[rows[:, None], columns]


def test_labels_and_errors_are_shown_pixel_by_pixel():
    truth, prediction, row = _row()
    panels = {title: _at_centres(panel) for title, panel in row.panels.items()}
    assert list(panels) == ["image", "truth", "prediction", "errors"]
    assert (row.note, row.void, row.classes) == ("25.0 %", True, {0, 1})
    np.testing.assert_array_equal(panels["prediction"], colorize(prediction, STREET.colors))
    valid = truth != 255
    shown = colorize(truth, STREET.colors, where=valid)
    np.testing.assert_array_equal(panels["truth"][valid], shown[valid])
    np.testing.assert_array_equal(panels["errors"][0], [[255] * 3, [0] * 3, [255] * 3])
    void = panels["errors"][1, 1]
    assert void[0] == void[1] == void[2] not in (0, 255)
    np.testing.assert_array_equal(panels["truth"][~valid], [void, void])


def test_a_picture_that_is_all_void_has_no_errors():
    labels = np.zeros((2, 2), int)
    row = compare_labels(np.zeros((2, 2, 3)), labels, labels, STREET, where=labels > 0)
    assert (row.note, row.void) == ("0.0 %", True)


def test_columns_are_aligned_whatever_the_pictures_sizes():
    """Each row begins with the frame of its picture at the same place."""
    wide, high = _row((20, 30))[2], _row((30, 20))[2]
    assert [row.panels["truth"].shape[1] for row in (wide, high)] == [320, 320]
    picture = page([wide, high], STREET)
    assert picture.shape[1] == 1320
    left = (picture[30:600, :20] != 255).any(-1)
    assert {int(np.argmax(line)) for line in left if line.any()} == {7}


def test_the_legend_has_the_colours_of_all_rows_once():
    one, other = (
        compare_labels(np.zeros((1, 2, 1)), labels, labels, STREET)
        for labels in (np.array([[0, 0]]), np.array([[2, 0]]))
    )
    legend = page([one, other], STREET)[-38:].reshape(-1, 3)
    both, road = ({tuple(STREET.colors[c])} for c in (2, 1))
    colors = set(map(tuple, legend.tolist()))
    assert both <= colors
    assert not road & colors


def test_many_long_names_fit_onto_a_page():
    classes = Classes(
        tuple(f"a class with quite a long name, number {i}" for i in range(30)),
        tuple(tuple(int(part) for part in color) for color in palette(30)),
    )
    labels = np.arange(30).reshape(5, 6)
    row = compare_labels(np.zeros((5, 6, 3)), labels, labels, classes)
    picture = page([row], classes)
    border = np.concatenate([picture[:, :4].ravel(), picture[:, -4:].ravel()])
    assert (border == 255).all()
    legend = picture[-250:]
    assert all((legend == color).all(-1).any() for color in palette(30))


def test_only_what_is_drawn_is_in_the_legend():
    boxes, two = np.array([[1, 1, 4, 4], [5, 2, 8, 5]], np.float32), np.ones(2, bool)
    objects = Instances(boxes, np.array([1, 2], np.int32), two, scores=np.array([0.9, 0.1], "f"))
    assert compare_instances(GREY, objects, objects, STREET).classes == {1}
    segments = Panoptic(np.full((6, 9), 1), np.array([0, 2, 1], np.int32), np.ones(3, bool))
    assert compare_segments(GREY, segments, segments, STREET).classes == {2}


@pytest.mark.usefixtures("unchecked_shapes")
def test_sizes_that_differ_are_an_error():
    labels = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"prediction: expected shape \(2, 3\), got \(3, 2\)"):
        compare_labels(np.zeros((2, 3, 3)), labels, labels.T, STREET)
