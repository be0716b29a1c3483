import jax
import numpy as np

from segjax.data import panoptic_to_instances
from segjax.typing import Panoptic

SEGMENTS = np.array([[0, 0, 1, 1], [3, 1, 1, -1], [2, 2, -1, 4]], np.int32)
CLASSES = np.array([0, 1, 1, 2, 1, 2], np.int32)
VALID = np.array([True, True, True, True, False, True])  # the last has no pixel
convert = jax.jit(panoptic_to_instances, static_argnames=("things", "max_instances"))
PANOPTIC = Panoptic(SEGMENTS, CLASSES, VALID, np.arange(6) == 2)


def test_every_segment_stays_in_its_row():
    instances = convert(PANOPTIC)
    assert instances.valid.tolist() == [True, True, True, True, False, False]
    assert instances.areas.tolist() == [2, 4, 2, 1, 0, 0]
    assert instances.classes.tolist() == CLASSES.tolist()
    assert instances.crowd.tolist() == PANOPTIC.crowd.tolist()
    for row in range(4):
        np.testing.assert_array_equal(instances.masks[row], row == SEGMENTS)
    assert not instances.masks[4:].any()
    assert instances.boxes[1].tolist() == [1, 0, 4, 2]
    assert instances.boxes[4].tolist() == [0, 0, 0, 0]


def test_what_is_in_no_table_is_no_thing():
    """Segments of 64 bits do not wrap, and classes outside the list are no things."""
    far = Panoptic(
        SEGMENTS + 2**32 * np.int64(SEGMENTS == 1), CLASSES + np.array([-1, 0, 2, 0, 0, 0]), VALID
    )
    assert panoptic_to_instances(far).areas.tolist() == [2, 0, 2, 1, 0, 0]
    things = panoptic_to_instances(far, things=(True, True, True))
    assert things.valid.tolist() == [False, False, False, True, False, False]


def test_the_largest_things_come_first():
    things = (False, True, True)
    for most in (0, 2, 3):
        rows, areas = [1, 2, 3][:most], [4, 2, 1][:most]
        instances = convert(PANOPTIC, things=things, max_instances=most)
        assert instances.areas.tolist() == areas
        assert instances.classes.tolist() == CLASSES[rows].tolist()
        assert instances.crowd.tolist() == PANOPTIC.crowd[rows].tolist()
        np.testing.assert_array_equal(
            instances.masks, np.array(rows, int)[:, None, None] == SEGMENTS
        )
        assert instances.valid.all()


def test_tables_are_padded_to_the_size_asked_for():
    instances = convert(PANOPTIC, max_instances=8)
    assert instances.valid.tolist() == [True] * 4 + [False] * 4
    assert instances.areas.tolist() == [4, 2, 2, 1, 0, 0, 0, 0]
    assert instances.masks.shape == (8, 3, 4)
    none = Panoptic(np.full((3, 4), -1, np.int32), CLASSES[:0], VALID[:0])
    for most in (None, 2):
        instances = convert(none, max_instances=most)
        assert len(instances.valid) == (most or 0)
        assert not instances.valid.any()


def test_a_batch_is_what_its_examples_are():
    other = Panoptic(SEGMENTS[::-1].copy(), CLASSES[::-1].copy(), ~VALID, PANOPTIC.crowd)
    batch = jax.tree.map(lambda *leaves: np.stack(leaves)[:, None], PANOPTIC, other)
    options = {"things": (False, True, True), "max_instances": 3}
    together = convert(batch, **options)
    for i, one in enumerate((PANOPTIC, other)):
        alone = convert(one, **options)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(a[i, 0], b)
