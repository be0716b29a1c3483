import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from segjax.data.palette import palette
from segjax.data.source import Classes
from segjax.viz import (
    colorize,
    figure_image,
    overlay,
    save_image,
    side_by_side,
    training_curves,
)

STREET = Classes(("sky", "road", "car"), ((10, 20, 30), (200, 0, 0), (0, 0, 255)))
RANDOM = np.random.default_rng(0)


def test_figure_image_shows_what_is_drawn_where_it_is_drawn():
    pixels = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)
    figure = Figure((0.3, 0.2), dpi=100)
    figure.figimage(pixels, origin="upper")
    picture = figure_image(figure)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, pixels)


def test_colorize_gives_each_label_its_color_and_void_black():
    labels = np.array([[0, 2], [255, 1]])
    picture = colorize(labels, STREET.colors, where=labels != 255)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, [[[10, 20, 30], [0, 0, 255]], [[0, 0, 0], [200, 0, 0]]])
    np.testing.assert_array_equal(colorize(jnp.zeros((2, 1, 1), int), palette(1))[0], [palette(1)])


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_without_a_color_is_an_error_that_names_it(label):
    with pytest.raises(ValueError, match=f"labels holds {label}; due are 0 to 2"):
        colorize(np.array([[0, label]]), STREET.colors)


def test_overlay_mixes_picture_and_colors_and_leaves_void_alone():
    image = RANDOM.integers(0, 256, (4, 5, 3), np.uint8)
    labels = RANDOM.integers(0, 3, (4, 5))
    where = RANDOM.random((4, 5)) < 0.7
    mixed = overlay(image, labels, STREET.colors, alpha=0.25, where=where)
    expected = 0.75 * image + 0.25 * np.array(STREET.colors)[labels]
    assert mixed.dtype == np.uint8
    assert np.abs(mixed - expected)[where].max() <= 0.5
    np.testing.assert_array_equal(mixed[~where], image[~where])
    np.testing.assert_array_equal(overlay(image, labels, STREET.colors, alpha=0.0), image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_overlay_takes_grey_and_floating_pictures(dtype):
    grey = np.array([[0, 255], [128, 64]], np.uint8)[..., None]
    labels = np.zeros((2, 2), int)
    floating = (
        jnp.asarray(grey / 255, dtype) if dtype is jnp.bfloat16 else (grey / 255).astype(dtype)
    )
    expected = overlay(np.repeat(grey, 3, -1), labels, STREET.colors)
    mixed = overlay(floating, labels, STREET.colors)
    assert np.abs(mixed.astype(int) - expected).max() <= (1 if dtype is jnp.bfloat16 else 0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_overlay_names_what_does_not_fit():
    image, labels = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), int)
    with pytest.raises(ValueError, match="alpha is 2"):
        overlay(image, labels, STREET.colors, alpha=2.0)
    with pytest.raises(ValueError, match=r"labels has shape \(3, 2\)"):
        overlay(image, labels.T, STREET.colors)
    with pytest.raises(ValueError, match=r"image has shape \(2, 3, 2\)"):
        overlay(image[..., :2], labels, STREET.colors)


def panels_of(figure):
    return {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in figure.axes}


def test_side_by_side_shows_picture_labels_and_errors():
    image = RANDOM.random((2, 3, 3))
    truth = np.array([[0, 0, 1], [1, 255, 255]])
    prediction = np.array([[0, 1, 1], [1, 0, 1]])
    figure = side_by_side(image, truth, prediction, STREET, where=truth != 255)
    panels = panels_of(figure)
    assert list(panels) == ["image", "truth", "prediction", "errors (black): 25.0 %"]
    np.testing.assert_allclose(panels["image"], image * 255, atol=0.5)
    np.testing.assert_array_equal(panels["prediction"], colorize(prediction, STREET.colors))
    valid = truth != 255
    np.testing.assert_array_equal(
        panels["truth"][valid], colorize(truth, STREET.colors, where=valid)[valid]
    )
    errors = panels["errors (black): 25.0 %"]
    np.testing.assert_array_equal(errors[0], [[255] * 3, [0] * 3, [255] * 3])
    void = errors[1, 1]
    assert void[0] == void[1] == void[2] not in (0, 255)
    np.testing.assert_array_equal(panels["truth"][~valid], [void, void])


def test_the_legend_lists_the_classes_present_in_their_colors():
    labels = np.array([[0, 2]])
    figure = side_by_side(np.zeros((1, 2, 1)), labels, labels, STREET)
    (legend,) = figure.legends
    shown = {
        text.get_text(): tuple(round(255 * part) for part in patch.get_facecolor()[:3])
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert shown == {"sky": (10, 20, 30), "car": (0, 0, 255)}


def test_nothing_in_a_side_by_side_overlaps_with_many_long_names(tmp_path):
    classes = Classes(
        tuple(f"a class with quite a long name, number {i}" for i in range(30)),
        tuple(tuple(int(part) for part in color) for color in palette(30)),
    )
    labels = np.arange(30).reshape(5, 6)
    figure = side_by_side(np.zeros((5, 6, 3)), labels, labels, classes)
    figure.savefig(tmp_path / "figure.png")
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    assert all(legend.y1 < axes.get_window_extent().y0 for axes in figure.axes)


def test_side_by_side_of_a_picture_that_is_all_void():
    labels = np.zeros((2, 2), int)
    figure = side_by_side(np.zeros((2, 2, 3)), labels, labels, STREET, where=labels > 0)
    assert "errors (black): 0.0 %" in panels_of(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sky", "void"]


def test_save_image_keeps_every_value_of_a_png(tmp_path):
    rgb = RANDOM.integers(0, 256, (4, 5, 3), np.uint8)
    save_image(tmp_path / "ü rgb.png", rgb)
    data = np.fromfile(tmp_path / "ü rgb.png", np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[..., ::-1], rgb)
    for dtype in (np.uint8, np.uint16):
        labels = np.array([[0, np.iinfo(dtype).max]], dtype)
        save_image(tmp_path / "labels.png", labels)
        read = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED)
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, labels)


@pytest.mark.usefixtures("unchecked_shapes")
def test_save_image_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"picture\.nonsense: no known image format"):
        save_image(tmp_path / "picture.nonsense", np.zeros((2, 2), np.uint8))
    with pytest.raises(FileNotFoundError, match="absent"):
        save_image(tmp_path / "absent" / "picture.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(TypeError, match="array is int32"):
        save_image(tmp_path / "picture.png", np.zeros((2, 2), np.int32))


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws the curves of a text; returns the figure that was saved."""
    figures = []
    savefig = Figure.savefig

    def draw(text):
        (tmp_path / "metrics.jsonl").write_text(text)
        training_curves(tmp_path / "metrics.jsonl", path=tmp_path / "curves.png")
        assert cv2.imread(str(tmp_path / "curves.png")) is not None
        return figures[-1]

    def record(figure, path):
        figures.append(figure)
        savefig(figure, path)

    monkeypatch.setattr(Figure, "savefig", record)
    return draw


def curves_of(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def lines_of(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_curves_of_training_and_validation_share_a_panel(draw):
    rows = [
        {"step": 10, "loss": 2.0, "learning_rate": 0.1},
        {"step": 20, "loss": 0.1, "learning_rate": 0.001},
        {"step": 20, "val/loss": 0.5, "val/mean_iou": 0.25, "val/iou/car": 0.5, "val/iou/sky": 0.0},
    ]
    panels = curves_of(draw("\n".join(map(json.dumps, rows))))
    assert list(panels) == ["loss", "learning rate", "mean iou", "iou"]
    assert lines_of(panels["loss"]) == {"train": [[10, 2.0], [20, 0.1]], "val": [[20, 0.5]]}
    assert lines_of(panels["iou"]) == {"car": [[20, 0.5]], "sky": [[20, 0.0]]}
    assert panels["loss"].get_yscale() == "log"
    assert panels["learning rate"].get_yscale() == "linear"
    for axes in panels.values():
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names == list(lines_of(axes))


def test_a_loss_that_reaches_0_has_a_linear_axis(draw):
    panels = curves_of(draw('{"step": 1, "loss": 100.0}\n{"step": 2, "loss": 0.0}\n'))
    assert panels["loss"].get_yscale() == "linear"


def test_of_a_resumed_run_the_later_rows_count_and_what_is_missing_is_left_out(draw):
    text = (
        '{"step": 10, "loss": 3.0}\n{"step": 20, "loss": 2.5}\n{"step": 20, "lo\n\n'
        '{"step": 20, "loss": 2.0}\n{"step": 15, "loss": null}\n{"step": 30}\n'
    )
    assert lines_of(curves_of(draw(text))["loss"]) == {"train": [[10, 3.0], [20, 2.0]]}


def test_non_finite_figures_do_not_stop_the_drawing(draw):
    text = '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": Infinity}'
    assert curves_of(draw(text))["loss"].get_yscale() == "linear"


def test_no_metrics_give_a_picture_that_says_so(draw):
    assert [text.get_text() for text in draw("").texts] == ["no metrics yet"]


def test_a_missing_metrics_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
        training_curves(tmp_path / "absent.jsonl", path=tmp_path / "curves.png")
