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
    draw_confusion,
    draw_labels,
    overlay,
    save_image,
    training_curves,
)

STREET = Classes(("sky", "road", "car"), ((10, 20, 30), (200, 0, 0), (0, 0, 255)))
RANDOM = np.random.default_rng(0)


def test_colorize_gives_each_label_its_color_and_void_black():
    labels = np.array([[0, 2], [255, 1]])
    picture = colorize(labels, STREET.colors, where=labels != 255)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, [[[10, 20, 30], [0, 0, 255]], [[0, 0, 0], [200, 0, 0]]])
    np.testing.assert_array_equal(colorize(jnp.zeros((2, 1, 1), int), palette(1))[0], [palette(1)])


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_without_a_color_is_an_error_that_names_it(label):
    with pytest.raises(ValueError, match=f"labels: expected 0 to 2, got {label}"):
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
    with pytest.raises(ValueError, match="alpha: expected"):
        overlay(image, labels, STREET.colors, alpha=2.0)
    with pytest.raises(ValueError, match=r"labels: expected shape \(2, 3\), got \(3, 2\)"):
        overlay(image, labels.T, STREET.colors)
    with pytest.raises(ValueError, match=r"image: expected .* got \(2, 3, 2\)"):
        overlay(image[..., :2], labels, STREET.colors)


def test_draw_labels_names_large_regions_and_tints_the_rest():
    image, labels = np.full((60, 120, 3), 100, np.uint8), np.zeros((60, 120), int)
    labels[:4, :4] = 2  # too small for a name
    void = np.zeros(labels.shape, bool)
    void[:, 100:] = True
    picture = draw_labels(image, labels, STREET, where=~void)
    tinted = overlay(image, labels, STREET.colors, where=~void)
    written = (picture != tinted).any(-1)
    assert written[20:40, 30:90].any()
    assert not written[:10].any()
    assert not written[:, 100:].any()


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
    with pytest.raises(ValueError, match=r"picture\.nonsense: expected an image format"):
        save_image(tmp_path / "picture.nonsense", np.zeros((2, 2), np.uint8))
    with pytest.raises(FileNotFoundError, match="absent"):
        save_image(tmp_path / "absent" / "picture.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(TypeError, match=r"array: expected .* got int32"):
        save_image(tmp_path / "picture.png", np.zeros((2, 2), np.int32))


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws the curves of a text; returns the figure that was saved."""
    figures = []
    savefig = Figure.savefig

    def draw(text, classes=None):
        (tmp_path / "metrics.jsonl").write_text(text)
        training_curves(tmp_path / "metrics.jsonl", path=tmp_path / "curves.png", classes=classes)
        assert cv2.imread(str(tmp_path / "curves.png")) is not None
        return figures[-1]

    def record(figure, *args, **options):
        figures.append(figure)
        savefig(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    return draw


def curves_of(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def lines_of(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


ROWS = [
    {"step": 10, "loss": 2.0, "learning_rate": 0.1},
    {"step": 20, "loss": 0.1, "learning_rate": 0.001},
    {"step": 20, "val/loss": 0.5, "val/mean_iou": 0.25, "val/ap": 0.1, "val/ap_small": -1.0},
    {"step": 20, "val/iou/car": 0.5, "val/iou/sky": 0.0, "val/ap/car": 0.125},
]


def test_what_belongs_together_shares_a_panel(draw):
    """Training and validation; the mean scores; the classes. What has no object is left out."""
    panels = curves_of(draw("\n".join(map(json.dumps, ROWS))))
    assert list(panels) == ["loss", "learning rate", "scores", "AP", "IoU"]
    assert lines_of(panels["loss"]) == {"train": [[10, 2.0], [20, 0.1]], "val": [[20, 0.5]]}
    assert lines_of(panels["scores"]) == {"mean IoU": [[20, 0.25]], "AP": [[20, 0.1]]}
    assert lines_of(panels["IoU"]) == {"car": [[20, 0.5]], "sky": [[20, 0.0]]}
    assert lines_of(panels["AP"]) == {"car": [[20, 0.125]]}
    assert panels["loss"].get_yscale() == "log"
    assert panels["learning rate"].get_yscale() == "linear"


def test_a_single_evaluation_has_the_runs_steps_a_marker_and_the_scores_range(draw):
    panels = curves_of(draw("\n".join(map(json.dumps, ROWS))))
    for name, top in (("IoU", 0.5), ("AP", 0.2)):
        axes = panels[name]
        assert all(line.get_marker() == "o" for line in axes.lines)
        assert axes.get_xlim() == panels["loss"].get_xlim()
        assert axes.get_xlim()[0] == 0
        np.testing.assert_allclose(axes.get_ylim(), (0, top), rtol=0.05)


def test_classes_have_their_own_colours_darker_where_white_swallows_them(draw):
    classes = Classes(("car", "sky"), ((200, 0, 0), (255, 255, 220)), ())
    lines = curves_of(draw("\n".join(map(json.dumps, ROWS)), classes))["IoU"].lines
    car, sky = (255 * np.array(line.get_color()) for line in lines)
    np.testing.assert_allclose(car, (200, 0, 0), atol=1)
    assert sky.max() < 220


def test_the_legend_of_many_curves_names_the_ends_in_order(draw):
    row = {"step": 1} | {f"val/iou/{k}": k / 40 for k in range(30)}
    (axes,) = curves_of(draw(json.dumps(row))).values()
    names = [text.get_text().split()[0] for text in axes.get_legend().get_texts()]
    assert names == [*map(str, range(29, 19, -1)), "…", *map(str, range(9, -1, -1))]


@pytest.mark.parametrize("count", [2, 30])
def test_a_confusion_matrix_shows_shares_of_rows(tmp_path, monkeypatch, count):
    """Of the classes there are; unlabelled rows have none, and few classes their numbers."""
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda f, *a, **options: (figures.append(f), savefig(f, *a, **options))
    )
    classes = Classes(tuple(map(str, range(count + 1))), ((0, 0, 0),) * (count + 1))
    counts = np.zeros((count + 1, count + 1), np.int64)
    counts[0, :2] = 3, 1
    counts[0, 2:count] = 0
    counts[np.arange(2, count), np.arange(2, count)] = 5
    draw_confusion(counts, classes, path=tmp_path / "confusion.png")
    axes = figures[0].axes[0]
    shares = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    assert shares.shape == (count, count)
    np.testing.assert_allclose(shares[0, :2], (75, 25))
    assert np.isnan(shares[1]).all()
    assert [text.get_text() for text in axes.texts] == (["75", "25"] if count == 2 else [])


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
