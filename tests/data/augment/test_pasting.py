import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data import copy_paste, panoptic_to_instances
from segjax.ops import masks_to_boxes
from segjax.typing import Panoptic, Record

ROWS, SHAPE = 6, (10, 12)
THINGS = (False, True, True)
KEYS = jax.random.split(jax.random.key(0), 4)


def example(seed, objects):
    """Rectangles of the classes 1 and 2 on a background of class 0, the image all its own."""
    rng = np.random.default_rng(seed)
    segments = np.zeros(SHAPE, np.int32)
    for row in range(1, 1 + objects):
        top, left = rng.integers(0, [7, 9])
        segments[top : top + rng.integers(2, 5), left : left + rng.integers(2, 5)] = row
    segments[rng.random(SHAPE) < 0.1] = -1
    classes = np.array([0, 1, 2, 1, 2, 1], np.int32)
    crowd = np.arange(ROWS) == 2
    panoptic = Panoptic(segments, classes, np.isin(np.arange(ROWS), segments), crowd)
    return Record(
        image=rng.random((*SHAPE, 3), np.float32),
        labels=classes[segments],
        where=segments >= 0,
        size=np.array(SHAPE, np.int32),
        panoptic=panoptic,
        edges=segments > 0,
        index=np.int32(seed),
        valid=np.array(True),
    )


convert = jax.jit(panoptic_to_instances, static_argnames=("things", "max_instances"))
BATCH = jax.tree.map(
    lambda *leaves: np.stack(leaves), example(0, 2), example(1, 3), example(2, 5), example(3, 1)
)
OTHER = [1, 0, 3, 2]


def with_instances(batch):
    return jax.device_get(
        batch.replace(panoptic=None, instances=convert(batch.panoptic, things=THINGS))
    )


def pasted_pixels(before, after):
    """Where the image is another one: there it is the neighbour's."""
    pasted = (after.image != before.image).any(axis=-1)
    np.testing.assert_array_equal(after.image[pasted], before.image[OTHER][pasted])
    return pasted


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_pasted_segments_cover_what_was_there(probability):
    after = jax.device_get(copy_paste(KEYS, BATCH, things=THINGS, probability=probability))
    pasted = pasted_pixels(BATCH, after)
    for i, j in enumerate(OTHER):
        ours, theirs, got = (
            jax.tree.map(lambda a, k=k: a[k], record.panoptic)
            for record, k in ((BATCH, i), (BATCH, j), (after, i))
        )
        here = pasted[i]
        np.testing.assert_array_equal(got.segments[~here], ours.segments[~here])
        np.testing.assert_array_equal(got.valid, np.isin(np.arange(ROWS), got.segments))
        sources = np.unique(theirs.segments[here])
        for row in sources:  # each pasted whole, into one free row
            np.testing.assert_array_equal(here[theirs.segments == row], True)
            (target,) = np.unique(got.segments[theirs.segments == row])
            assert not ours.valid[target]
            assert got.classes[target] == theirs.classes[row] > 0
            assert not got.crowd[target]
            assert not theirs.crowd[row]
        candidates = theirs.valid & (theirs.classes > 0) & ~theirs.crowd
        room = np.count_nonzero(~ours.valid)
        assert len(sources) <= room
        if probability == 1:
            assert len(sources) == min(np.count_nonzero(candidates), room)
        np.testing.assert_array_equal(after.labels[i][here], got.classes[got.segments[here]])
        assert after.where[i][here].all()
    assert after.edges is None
    np.testing.assert_array_equal(after.index, BATCH.index)


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_instances_are_pasted_as_segments_are(probability):
    """Masks that share no pixel: the same numbers are drawn, the same objects remain."""
    partition = copy_paste(KEYS, BATCH, things=THINGS, probability=probability)
    expected = convert(partition.panoptic, things=THINGS)
    # Rows of stuff are free among the instances, and so would be taken.
    batch = with_instances(BATCH)
    background = BATCH.panoptic.classes == 0
    free = dataclasses.replace(
        batch.instances,
        valid=batch.instances.valid | background,
        masks=batch.instances.masks
        | (background[..., None, None] & (BATCH.panoptic.segments == 0)[:, None]),
    )
    after = copy_paste(KEYS, batch.replace(instances=free), things=THINGS, probability=probability)
    np.testing.assert_array_equal(after.image, partition.image)
    instances, things = after.instances, np.asarray(after.instances.classes) > 0
    for name in ("valid", "classes", "masks", "boxes", "areas", "crowd"):
        actual, due = (np.asarray(getattr(x, name))[things] for x in (instances, expected))
        np.testing.assert_array_equal(actual, due)


def test_overlapping_masks_stay_whole_below_what_is_pasted():
    batch = with_instances(BATCH)
    rng = np.random.default_rng(0)
    masks = rng.random(batch.instances.masks.shape) < 0.4
    masks[0, 1] = False
    masks[0, 1, 0, 0] = masks[1, 1, 0, 0] = True  # one pixel, to be covered
    batch = batch.replace(instances=dataclasses.replace(batch.instances, masks=masks))
    after = copy_paste(KEYS, batch, probability=1.0)
    pasted = pasted_pixels(batch, after)
    kept = batch.instances.valid
    for i, row in np.argwhere(kept):
        np.testing.assert_array_equal(after.instances.masks[i, row], masks[i, row] & ~pasted[i])
    assert kept[0, 1]
    assert not after.instances.valid[0, 1]
    boxes = jax.jit(masks_to_boxes)(after.instances.masks)
    np.testing.assert_array_equal(after.instances.boxes, boxes)
    np.testing.assert_array_equal(after.instances.areas, after.instances.masks.sum(axis=(2, 3)))


def test_both_stay_in_step():
    both = BATCH.replace(instances=convert(BATCH.panoptic, things=THINGS, max_instances=4))
    after = copy_paste(KEYS, both, things=THINGS)
    expected = convert(after.panoptic, things=THINGS, max_instances=4)
    jax.tree.map(np.testing.assert_array_equal, after.instances, expected)


def test_nothing_is_pasted_where_nothing_may_be():
    after = copy_paste(KEYS, BATCH, things=THINGS, probability=0.0)
    np.testing.assert_array_equal(after.image, BATCH.image)
    jax.tree.map(np.testing.assert_array_equal, after.panoptic, BATCH.panoptic)


def test_every_subset_occurs():
    """The first example gets any of the two objects that the second may give."""
    may = (1, 3)
    subsets = set()
    for keys in jax.random.split(jax.random.key(1), (30, 4)):
        image = copy_paste(keys, BATCH, things=THINGS).image[0]
        pasted = np.asarray((image != BATCH.image[0]).any(axis=-1))
        subsets.add(tuple(pasted[BATCH.panoptic.segments[1] == row].all() for row in may))
    assert subsets == {(a, b) for a in (False, True) for b in (False, True)}


def test_wrong_arguments_are_named():
    odd = jax.tree.map(lambda a: a[:3], BATCH)
    with pytest.raises(ValueError, match="batch: expected an even number of examples, got 3"):
        copy_paste(KEYS[:3], odd)
    with pytest.raises(ValueError, match="probability"):
        copy_paste(KEYS, BATCH, probability=1.5)
    with pytest.raises(ValueError, match="instances: expected"):
        copy_paste(KEYS, Record(image=jnp.zeros((4, *SHAPE, 3))))
    bare = with_instances(BATCH)
    bare = bare.replace(instances=dataclasses.replace(bare.instances, masks=None))
    with pytest.raises(ValueError, match=r"batch.instances.masks: expected masks"):
        copy_paste(KEYS, bare)
