import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.data.augment import affine, random_geometry
from segjax.ops import masks_to_boxes
from segjax.typing import Instances, Panoptic, Points, Record

CANVAS = 24, 30
SHAPE = 20, 26


def coordinates(shape):
    """The (x, y) of each pixel, as an image: interpolated, it tells where a value comes from."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.stack([x, y], axis=-1).astype(np.float32)


def example(size=CANVAS, *, seed=0):
    """A picture of `size` on a larger canvas, of random rectangles, one before the other."""
    rng = np.random.default_rng(seed)
    segments = np.zeros(CANVAS, np.int32)
    for row in range(1, 6):
        top, left = rng.integers(0, [size[0] - 6, size[1] - 6])
        height, width = rng.integers(3, 12, 2)
        segments[top : top + height, left : left + width] = row
    segments[size[0] :] = segments[:, size[1] :] = -1
    rows = np.arange(6)
    classes = np.array([0, 2, 2, 4, 5, 1], np.int32)
    valid = np.isin(rows, segments)
    masks = segments == rows[1:, None, None]
    spots = [np.argwhere(segments == row) for row in rows]
    points = [spot[rng.integers(len(spot))][::-1] + 0.5 if len(spot) else (0, 0) for spot in spots]
    image = coordinates(CANVAS)
    image[size[0] :] = image[:, size[1] :] = 1e3  # what a canvas holds must not matter
    where = (segments >= 0) & (rng.random(CANVAS) < 0.9)
    labels = np.where(segments >= 0, classes[segments], 99).astype(np.int32)
    return Record(
        image=image,
        labels=labels,
        where=where,
        size=np.array(size, np.int32),
        instances=Instances(
            boxes=np.asarray(masks_to_boxes(masks)),
            classes=classes[1:],
            valid=valid[1:],
            masks=masks,
            areas=masks.sum(axis=(1, 2)).astype(np.float32),
        ),
        panoptic=Panoptic(segments, classes, valid),
        edges=rng.random(CANVAS) < 0.5,
        points=Points(np.array(points, np.float32), classes, valid),
        scribbles=rng.random(CANVAS) < 0.5,
        tags=np.isin(np.arange(7), labels[where]),
        captions=np.arange(10, dtype=np.int32).reshape(5, 2),
        index=np.array(3, np.int32),
        valid=np.array(True),
    )


def compose(scale, angle, shear, mirror, shift):
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ [[mirror, shear], [0, 1]] / scale
    center = np.array(SHAPE[::-1]) / 2
    return np.float32(np.column_stack([linear, np.array(shift) - linear @ center]))


matrices = st.builds(
    compose,
    scale=st.floats(0.4, 3),
    angle=st.floats(-4, 4),
    shear=st.floats(-0.5, 0.5),
    mirror=st.sampled_from([-1, 1]),
    shift=st.tuples(st.floats(-5, 30), st.floats(-5, 30)),
)
warp = jax.jit(affine, static_argnames="shape")


def on_host(record):
    return jax.tree.map(np.asarray, record)


@given(
    matrix=matrices,
    size=st.sampled_from([CANVAS, (24, 17), (13, 30), (15, 22)]),
    seed=st.integers(0, 9),
)
def test_everything_moves_together(matrix, size, seed):
    before = example(size, seed=seed)
    after = on_host(warp(before, matrix, shape=SHAPE))
    source = coordinates(SHAPE) @ matrix[:, :2].T + matrix[:, 2]
    # Where rounding might take the next pixel, nothing is asked.
    clear = np.all(np.abs(source - np.round(source)) > 1e-3, axis=-1)
    inside = np.all((source > 0) & (source < size[::-1]), axis=-1)
    clamped = np.clip(source, 0.5, np.array(size[::-1]) - 0.5)
    expected = np.where(inside[..., None], clamped, 0)
    np.testing.assert_allclose(after.image[clear], expected[clear], atol=1e-4)

    here = clear & inside
    col, row = np.floor(source[here]).astype(int).T
    np.testing.assert_array_equal(after.labels[here], before.labels[row, col])
    np.testing.assert_array_equal(after.panoptic.segments[here], before.panoptic.segments[row, col])
    np.testing.assert_array_equal(
        after.instances.masks[:, here], before.instances.masks[:, row, col]
    )
    for name in ("where", "edges", "scribbles"):
        moved, original = getattr(after, name), getattr(before, name)
        np.testing.assert_array_equal(moved[here], original[row, col])
        assert not np.any(moved[clear & ~inside])
    assert np.all(after.panoptic.segments[clear & ~inside] == -1)
    assert not np.any(after.instances.masks[:, clear & ~inside])
    check_consistency(before, after)
    np.testing.assert_allclose(
        after.points.xy @ matrix[:, :2].T + matrix[:, 2], before.points.xy, atol=1e-3
    )


def check_consistency(before, after):
    """What must hold between the parts of a record, however it was moved."""
    instances = after.instances
    np.testing.assert_array_equal(instances.boxes, masks_to_boxes(instances.masks))
    np.testing.assert_array_equal(instances.areas, instances.masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(instances.valid, instances.masks.any(axis=(1, 2)))
    rows = np.arange(len(after.panoptic.valid))
    np.testing.assert_array_equal(after.panoptic.valid, np.isin(rows, after.panoptic.segments))
    within = np.all((after.points.xy >= 0) & (after.points.xy < SHAPE[::-1]), axis=-1)
    np.testing.assert_array_equal(after.points.valid, before.points.valid & within)
    np.testing.assert_array_equal(np.flatnonzero(after.tags), np.unique(after.labels[after.where]))
    np.testing.assert_array_equal(after.size, SHAPE)
    np.testing.assert_array_equal(after.captions, before.captions)
    assert after.index == before.index


def test_the_identity_changes_nothing():
    before = example()
    jax.tree.map(np.testing.assert_array_equal, warp(before, jnp.eye(2, 3), shape=CANVAS), before)


def test_mirroring_is_exact():
    before = example()
    width = CANVAS[1]
    after = warp(before, jnp.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]]), shape=CANVAS)
    np.testing.assert_array_equal(after.image, before.image[:, ::-1])
    for name in ("labels", "where", "edges", "scribbles"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[:, ::-1])
    np.testing.assert_array_equal(after.instances.masks, before.instances.masks[..., ::-1])
    x0, y0, x1, y1 = before.instances.boxes[before.instances.valid].T
    np.testing.assert_array_equal(
        after.instances.boxes[before.instances.valid], np.stack([width - x1, y0, width - x0, y1], 1)
    )
    np.testing.assert_array_equal(after.points.xy[:, 0], width - before.points.xy[:, 0])


def test_a_quarter_turn_is_exact():
    before = example()
    turn = jnp.array([[0.0, -1.0, CANVAS[1]], [1.0, 0.0, 0.0]])
    after = warp(before, turn, shape=CANVAS[::-1])
    np.testing.assert_array_equal(after.image, np.rot90(before.image))
    np.testing.assert_array_equal(after.labels, np.rot90(before.labels))


def test_boxes_without_masks_are_drawn_around_their_corners():
    boxes = np.array([[2, 3, 8, 9], [20, 10, 30, 24], [0, 0, 1, 1]], np.float32)
    ones = np.ones(3, bool)
    areas = np.array([36.0, 140.0, 1.0], np.float32)
    instances = Instances(boxes, np.zeros(3, np.int32), ones, areas=areas)
    record = Record(image=coordinates(CANVAS), instances=instances)
    matrix = np.array([[0.5, 0.0, 2.0], [0.0, 0.5, 1.0]], np.float32)  # zoom 2 about (2, 1)
    after = warp(record, matrix, shape=SHAPE).instances
    np.testing.assert_allclose(after.boxes[:2], [[0, 4, 12, 16], [26, 18, 26, 20]])
    np.testing.assert_array_equal(after.valid, [True, False, False])
    np.testing.assert_allclose(after.areas, 4 * areas)
    turned = warp(record, compose(1.0, np.pi / 4, 0, 1, (5, 6)), shape=SHAPE).instances
    center = np.array(SHAPE[::-1]) / 2
    reach = 3 * np.sqrt(2)
    expected = np.concatenate([center - reach, center + reach])
    np.testing.assert_allclose(turned.boxes[0], expected, atol=1e-4)


@given(matrix=matrices, seed=st.integers(0, 9))
def test_a_box_without_its_mask_holds_the_box_of_the_mask(matrix, seed):
    before = example(seed=seed)
    tight = warp(before, matrix, shape=SHAPE).instances
    bare = dataclasses.replace(before.instances, masks=None)
    loose = warp(before.replace(instances=bare), matrix, shape=SHAPE).instances
    valid = np.asarray(tight.valid)
    assert not np.any(valid & ~np.asarray(loose.valid))
    grown = np.asarray(loose.boxes) + np.array([-0.501, -0.501, 0.501, 0.501])
    assert np.all((grown[:, :2] <= tight.boxes[:, :2])[valid])
    assert np.all((grown[:, 2:] >= tight.boxes[:, 2:])[valid])


def test_what_a_record_lacks_it_lacks_afterwards():
    bare = affine(Record(image=np.full((4, 4, 1), 255, np.uint8)), jnp.eye(2, 3), shape=(3, 5))
    np.testing.assert_array_equal(bare.image[..., 0], np.pad(np.ones((3, 4)), ((0, 0), (0, 1))))
    np.testing.assert_array_equal(bare.where, bare.image[..., 0] == 1)
    kept = {f.name for f in dataclasses.fields(bare) if getattr(bare, f.name) is not None}
    assert kept == {"image", "where", "size"}
    tags = np.array([True, False])
    weak = affine(Record(image=bare.image, tags=tags), jnp.eye(2, 3), shape=(3, 5))
    np.testing.assert_array_equal(weak.tags, tags)


draw = jax.jit(
    lambda keys, record, **options: jax.vmap(lambda key: random_geometry(key, record, **options))(
        keys
    ),
    static_argnames=("shape", "zoom", "zoom_from", "rotation", "flip"),
)


@pytest.mark.parametrize("size", [CANVAS, (14, 16)])
def test_points_stay_on_their_objects(size):
    """Enlarged by more than the root of 2, the pixel that a point falls in lies in its object."""
    before = example(size)
    keys = jax.random.split(jax.random.key(0), 100)
    after = on_host(draw(keys, before, shape=SHAPE, zoom=(1.5, 2.0), rotation=180.0))
    assert after.points.valid.sum() > 50
    for i, row in np.argwhere(after.points.valid):
        x, y = np.floor(after.points.xy[i, row]).astype(int)
        assert after.panoptic.segments[i, y, x] == row


def test_a_random_crop_is_a_window_of_the_picture():
    size, crop = (11, 12), (9, 11)
    keys = jax.random.split(jax.random.key(1), 300)
    before = example(size)
    after = on_host(draw(keys, before, shape=crop, zoom=(1.0, 1.0), flip=False))
    places = np.floor(after.image[:, 0, 0]).astype(int)
    for image, labels, (x, y) in zip(after.image, after.labels, places, strict=True):
        window = np.s_[y : y + crop[0], x : x + crop[1]]
        np.testing.assert_array_equal(image, before.image[window])
        np.testing.assert_array_equal(labels, before.labels[window])
    _, counts = np.unique(places, axis=0, return_counts=True)
    assert len(counts) == 3 * 2  # every place there is
    assert counts.min() > 25  # of 50 expected


def test_a_small_picture_lies_whole_within_the_crop():
    size, crop = (8, 9), (10, 12)
    keys = jax.random.split(jax.random.key(2), 200)
    record = Record(image=coordinates(size))
    after = on_host(draw(keys, record, shape=crop, zoom=(1.0, 1.0), flip=False))
    assert np.all(after.where.sum(axis=(1, 2)) == 8 * 9)
    corners = np.array([np.argwhere(where)[0] for where in after.where])
    assert len(np.unique(corners, axis=0)) == 3 * 4


def test_zoom_rotation_and_flip_keep_to_their_ranges():
    keys = jax.random.split(jax.random.key(3), 400)
    record = Record(image=coordinates((64, 64)))
    image = np.asarray(draw(keys, record, shape=(8, 8), zoom=(1.5, 3.0), rotation=20.0).image)
    right, down = image[:, 4, 5] - image[:, 4, 4], image[:, 5, 4] - image[:, 4, 4]
    scale = 1 / np.linalg.norm(down, axis=-1)
    assert 1.5 <= scale.min() < 1.6
    assert 2.8 < scale.max() <= 3.001
    np.testing.assert_allclose(np.median(scale), np.sqrt(1.5 * 3), rtol=0.05)
    angle = np.degrees(np.arctan2(-down[:, 0], down[:, 1]))
    assert -20.01 <= angle.min() < -18
    assert 18 < angle.max() <= 20.01
    flipped = right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0] < 0
    assert 160 < flipped.sum() < 240
    np.testing.assert_allclose(np.linalg.norm(right, axis=-1), 1 / scale, rtol=1e-3)


def test_from_the_fit_on_the_picture_fills_the_crop_at_scale_1():
    """On its longer side, whatever its size; and scales are uniform."""
    keys = jax.random.split(jax.random.key(6), 300)
    record = Record(image=coordinates(CANVAS), size=np.array([24, 16], np.int32))
    options = {"shape": (12, 12), "flip": False, "zoom_from": "fit"}
    whole = np.asarray(draw(keys, record, zoom=(1.0, 1.0), **options).where)
    assert (whole.any(axis=2).sum(axis=1) == 12).all()
    assert (whole.any(axis=1).sum(axis=1) == 8).all()
    image = np.asarray(draw(keys, record, zoom=(1.0, 3.0), **options).image)
    scale = 2 / (image[:, 6, 6] - image[:, 5, 6])[:, 1]  # 1 is half the picture's own
    assert 1 - 1e-3 < scale.min() < 1.1
    assert 2.9 < scale.max() < 3 + 1e-3
    np.testing.assert_allclose(np.mean(scale), 2, rtol=0.05)


def test_the_crop_stays_within_the_picture():
    keys = jax.random.split(jax.random.key(4), 200)
    record = Record(image=coordinates((40, 50)))
    assert np.all(draw(keys, record, shape=(16, 20), zoom=(0.4, 2.0)).where)


def test_a_batch_is_what_its_examples_are():
    before = example()
    keys = jax.random.split(jax.random.key(5), 3)
    options = {"shape": SHAPE, "zoom": (0.7, 1.4), "rotation": 10.0}
    batch = draw(keys, before, **options)
    alone = jax.jit(functools.partial(random_geometry, **options))
    for i, key in enumerate(keys):
        single = alone(key, before)
        np.testing.assert_allclose(single.image, batch.image[i], atol=1e-4)
        np.testing.assert_allclose(single.points.xy, batch.points.xy[i], atol=1e-4)
        assert np.mean(single.labels == batch.labels[i]) > 0.99
        jax.tree.map(np.testing.assert_array_equal, single, alone(key, before))
    assert not np.array_equal(batch.image[0], batch.image[1])


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_arguments_are_named():
    record, matrix, key = Record(image=coordinates((4, 4))), jnp.eye(2, 3), jax.random.key(0)
    with pytest.raises(ValueError, match=r"matrix.*\(3, 3\)"):
        affine(record, jnp.eye(3), shape=(4, 4))
    with pytest.raises(ValueError, match="image"):
        affine(Record(), matrix, shape=(4, 4))
    with pytest.raises(ValueError, match="image"):
        random_geometry(key, Record(), shape=(4, 4))
    with pytest.raises(ValueError, match="shape"):
        affine(record, matrix, shape=(0, 4))
    for zoom in ((0.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="zoom"):
            random_geometry(key, record, shape=(4, 4), zoom=zoom)
    with pytest.raises(ValueError, match="zoom_from"):
        random_geometry(key, record, shape=(4, 4), zoom_from="crop")
