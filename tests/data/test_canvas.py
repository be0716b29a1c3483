import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.data.canvas import pad, plan_canvases, random_window, rescale
from segjax.typing import Instances, Panoptic, Points, Record

sides = st.integers(1, 12)
shapes = st.tuples(sides, sides)


def coordinates(shape):
    """A picture in which every pixel holds its row, its column and their sum, as labels do."""
    row, column = np.indices(shape)
    segments = segments_of(row + column)
    masks = masks_of(row + column)
    return Record(
        image=np.stack([row, column, row + column], axis=-1).astype(np.uint8),
        labels=(1000 * row + column).astype(np.int32),
        where=(row + column) % 3 > 0,
        edges=row == column,
        panoptic=Panoptic(
            segments, np.arange(6, dtype=np.int32), np.isin(np.arange(6), segments), CROWD
        ),
        instances=Instances(
            boxes=np.zeros((3, 4), np.float32),  # which masks overrule
            classes=np.arange(3, dtype=np.int32),
            valid=np.array([True, True, False]),
            masks=masks,
            areas=np.full(3, 7, np.float32),
        ),
    )


CROWD = np.arange(6) == 2


def segments_of(total):
    return (total // 2 % 5 - 1).astype(np.int32)


def masks_of(total):
    """Two that share pixels, and one of padding."""
    return np.stack([total % 4 < 2, total % 3 == 1, np.zeros_like(total, bool)])


def assert_aligned(record, height, width):
    """Inside the picture every map still says what the image says, and outside nothing is known."""
    row, column, total = np.moveaxis(record.image[:height, :width].astype(int), -1, 0)
    np.testing.assert_array_equal(row + column, total)
    np.testing.assert_array_equal(record.labels[:height, :width], 1000 * row + column)
    np.testing.assert_array_equal(record.where[:height, :width], total % 3 > 0)
    np.testing.assert_array_equal(record.edges[:height, :width], row == column)
    np.testing.assert_array_equal(record.panoptic.segments[:height, :width], segments_of(total))
    np.testing.assert_array_equal(record.instances.masks[:, :height, :width], masks_of(total))
    outside = np.ones(record.where.shape, bool)
    outside[:height, :width] = False
    assert not record.where[outside].any()
    assert not record.edges[outside].any()
    assert (record.panoptic.segments[outside] == -1).all()
    assert not record.instances.masks[:, outside].any()
    assert record.size.tolist() == [height, width]


def assert_visible(record):
    """Tables say what the maps hold."""
    panoptic, instances = record.panoptic, record.instances
    np.testing.assert_array_equal(panoptic.valid, np.isin(np.arange(6), panoptic.segments))
    np.testing.assert_array_equal(instances.valid, instances.masks.any(axis=(1, 2)))
    for mask, box in zip(instances.masks, instances.boxes, strict=True):
        pixels = np.argwhere(mask)[:, ::-1] if mask.any() else np.full((1, 2), -1)
        assert box.tolist() == [*pixels.min(axis=0).clip(0), *(pixels.max(axis=0) + 1)]
    np.testing.assert_array_equal(instances.areas, instances.masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(panoptic.crowd, CROWD)
    assert panoptic.segments.dtype == np.int32
    assert instances.boxes.dtype == instances.areas.dtype == np.float32


@given(shapes, shapes, st.integers(0, 99))
def test_a_window_is_a_piece_of_the_picture_or_holds_all_of_it(picture, shape, seed):
    record = random_window(coordinates(picture), shape, np.random.default_rng(seed))
    height, width = np.minimum(picture, shape)
    assert record.image.shape == (*shape, 3)
    assert_aligned(record, height, width)
    assert_visible(record)
    row, column = record.image[:height, :width, 0], record.image[:height, :width, 1]
    np.testing.assert_array_equal(row, row[0, 0] + np.arange(height)[:, None].repeat(width, 1))
    np.testing.assert_array_equal(column, column[0, 0] + np.arange(width)[None].repeat(height, 0))
    assert not record.image[height:].any()
    assert not record.image[:, width:].any()


def test_every_window_occurs():
    record = coordinates((4, 5))
    corners = {
        tuple(random_window(record, (2, 3), np.random.default_rng(seed)).image[0, 0, :2].tolist())
        for seed in range(200)
    }
    assert corners == {(row, column) for row in range(3) for column in range(3)}


@given(shapes, sides, sides)
def test_padding_repeats_the_border_of_the_image_alone(picture, below, right):
    shape = picture[0] + below, picture[1] + right
    record = pad(coordinates(picture), shape, mode="edge")
    assert_aligned(record, *picture)
    row, column = np.minimum(np.indices(shape), np.reshape(picture, (2, 1, 1)) - 1)
    np.testing.assert_array_equal(record.image[..., 0], row)
    np.testing.assert_array_equal(record.image[..., 1], column)


def test_padding_changes_no_box_and_no_area():
    record = coordinates((2, 3))
    padded = pad(record, (4, 4))
    for name in ("boxes", "areas", "valid"):
        before, after = getattr(record.instances, name), getattr(padded.instances, name)
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(padded.panoptic.valid, record.panoptic.valid)


def bare(boxes, areas=None):
    """Instances without masks on a picture of 6 x 8."""
    boxes = np.array(boxes, np.float32)
    zeros, ones = np.zeros(len(boxes), np.int32), np.ones(len(boxes), bool)
    return Record(
        image=np.zeros((6, 8, 3), np.uint8), instances=Instances(boxes, zeros, ones, areas=areas)
    )


def test_boxes_without_masks_are_scaled_moved_and_clipped():
    record = bare([[0, 0, 8, 6], [2, 2, 4, 6]], np.array([48.0, 8.0], np.float32))
    half = rescale(record, 0.5).instances
    assert half.boxes.tolist() == [[0, 0, 4, 3], [1, 1, 2, 3]]
    assert half.areas.tolist() == [12, 2]
    seen = set()
    for seed in range(50):
        window = random_window(record, (6, 4), np.random.default_rng(seed)).instances
        left = 4 - int(window.boxes[1, 2]) if window.valid[1] else 4
        assert window.boxes[0].tolist() == [0, 0, 4, 6]
        assert window.boxes[1].tolist() == [max(2 - left, 0), 2, max(4 - left, 0), 6]
        seen.add(left)
    assert seen == {0, 1, 2, 3, 4}


def test_padding_marks_what_is_picture_if_nothing_else_did():
    record = pad(Record(image=np.zeros((2, 3, 1), np.uint8)), (3, 3))
    assert record.where.tolist() == [[True] * 3, [True] * 3, [False] * 3]
    assert record.labels is None


@given(shapes, st.integers(2, 3))
def test_shrinking_averages_the_image_and_takes_the_middle_of_the_maps(shape, factor):
    generator = np.random.default_rng(factor)
    image = generator.integers(256, size=(*np.multiply(shape, factor), 3), dtype=np.uint8)
    labels = generator.integers(9, size=image.shape[:2], dtype=np.int32)
    panoptic = Panoptic(labels - 1, np.arange(8, dtype=np.int32), np.ones(8, bool))
    whole = Record(image=image, labels=labels, where=labels > 3, panoptic=panoptic)
    small = rescale(whole, 1 / factor)
    blocks = image.reshape(shape[0], factor, shape[1], factor, 3).mean(axis=(1, 3))
    assert np.abs(small.image - blocks).max() <= 0.5
    middle = np.s_[factor // 2 :: factor, factor // 2 :: factor]
    np.testing.assert_array_equal(small.labels, labels[middle])
    np.testing.assert_array_equal(small.where, labels[middle] > 3)
    np.testing.assert_array_equal(small.panoptic.segments, labels[middle] - 1)
    seen = np.isin(np.arange(8), small.panoptic.segments)
    np.testing.assert_array_equal(small.panoptic.valid, seen)


def test_enlarging_interpolates_the_image_and_repeats_the_maps():
    image = np.array([[[0], [200]]], np.uint8)
    large = rescale(Record(image=image, labels=np.array([[3, 5]], np.int32)), 2.0)
    assert large.image[..., 0].tolist() == [[0, 50, 150, 200]] * 2
    assert large.labels.tolist() == [[3, 3, 5, 5]] * 2


def test_nothing_shrinks_away():
    small = rescale(coordinates((3, 2)), 0.01)
    assert small.image.shape == (1, 1, 3)
    assert_visible(small)


def test_labels_that_cannot_be_fitted_are_an_error():
    points = Points(np.zeros((1, 2), np.float32), np.zeros(1, np.int32), np.ones(1, bool))
    record = coordinates((3, 3)).replace(points=points, tags=np.ones(2, bool))
    with pytest.raises(
        ValueError,
        match=r"record: expected only labels, .* panoptic, got points, tags",
    ):
        pad(record, (4, 4))


many = st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=40)


@given(many, st.integers(1, 4), st.integers(1, 64))
def test_few_canvases_hold_all_pictures(sizes, most, multiple):
    sizes = np.array(sizes)
    planned = plan_canvases(sizes, most=most, multiple=multiple)
    assert (planned >= sizes).all()
    assert (planned % multiple == 0).all()
    shapes = np.unique(planned, axis=0)
    assert len(shapes) <= most
    # Each has the smallest, and together they are no more than all on the one that holds all.
    fits = (sizes[:, None] <= shapes).all(-1)
    least = np.where(fits, shapes.prod(-1), shapes.prod(-1).max() + 1).min(-1)
    np.testing.assert_array_equal(planned.prod(-1), least)
    one = plan_canvases(sizes, most=1, multiple=multiple)
    assert planned.prod(-1).sum() <= one.prod(-1).sum()


@given(many)
def test_where_there_are_few_sizes_nothing_is_enlarged(sizes):
    own = plan_canvases(np.array(sizes), most=0)
    np.testing.assert_array_equal(own, -(-np.array(sizes) // 32) * 32)
    np.testing.assert_array_equal(plan_canvases(np.array(sizes), most=40), own)


def test_canvases_group_by_orientation_and_by_how_many_there_are():
    sizes = np.array([(480, 640)] * 50 + [(640, 480)] * 20 + [(448, 640)] * 9 + [(640, 448)])
    shapes = np.unique(plan_canvases(sizes, most=2), axis=0)
    assert shapes.tolist() == [[480, 640], [640, 480]]
    # One picture does not take a program of its own from fifty.
    sizes = np.array([(480, 640)] * 50 + [(64, 64)] * 50 + [(96, 96)])
    assert np.unique(plan_canvases(sizes, most=2), axis=0).tolist() == [[96, 96], [480, 640]]


def test_as_many_sizes_as_there_are_pictures_are_planned_quickly():
    sizes = np.random.default_rng(0).integers(100, 4000, (20000, 2))
    planned = plan_canvases(sizes)
    assert len(np.unique(planned, axis=0)) == 3
    assert (planned >= sizes).all()


def test_options_of_planning_out_of_range_are_named():
    with pytest.raises(ValueError, match="most: expected at least 0, got -1"):
        plan_canvases(np.array([[2, 2]]), most=-1)
