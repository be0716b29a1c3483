"""What the pictures of objects and segments show, pixel by pixel."""

import numpy as np
import pytest

from segjax.data import Classes
from segjax.typing import Instances, Panoptic
from segjax.viz import draw_instances, draw_panoptic

CLASSES = Classes(("sky", "car"), ((40, 80, 200), (200, 40, 40)), (False, True))
GREY = np.full((12, 16, 3), 100, np.uint8)


def _instances(scores=None):
    """A small car in front of a large one."""
    masks = np.zeros((2, 12, 16), bool)
    masks[0, 5:8, 5:8] = True
    masks[1, 2:11, 2:14] = True
    boxes = np.array([[5, 5, 8, 8], [2, 2, 14, 11]], np.float32)
    return Instances(boxes, np.ones(2, np.int32), np.ones(2, bool), scores=scores, masks=masks)


def test_a_small_object_is_drawn_over_a_large_one_in_another_shade():
    picture = draw_instances(GREY, _instances(), CLASSES)
    assert (picture[0] == 100).all()
    assert (picture[6, 6] != picture[3, 4]).any()


def test_objects_below_the_threshold_are_not_drawn():
    scores = np.array([0.2, 0.9], np.float32)
    both, one = (
        draw_instances(GREY, _instances(scores), CLASSES, score_threshold=t) for t in (0.1, 0.5)
    )
    assert (both[6, 6] != one[6, 6]).any()
    none = draw_instances(GREY, _instances(scores), CLASSES, score_threshold=0.95)
    np.testing.assert_array_equal(none, GREY)


def test_without_masks_boxes_are_drawn():
    objects = Instances(
        np.array([[2, 2, 13, 10]], np.float32), np.ones(1, np.int32), np.ones(1, bool)
    )
    picture = draw_instances(GREY, objects, CLASSES)
    assert (picture[2, 2:13] != 100).any(-1).all()
    assert (picture[5, 6] == 100).all()


def test_stuff_has_its_classs_colour_and_void_stays():
    segments = np.full((12, 16), -1)
    segments[:4] = 0
    segments[6:, :5] = 1
    segments[6:, 9:] = 2
    panoptic = Panoptic(segments, np.array([0, 1, 1], np.int32), np.ones(3, bool))
    picture = draw_panoptic(GREY, panoptic, CLASSES, alpha=1.0)
    assert (picture[1, 1] == CLASSES.colors[0]).all()
    assert (picture[5] == 100).all()
    assert (picture[9, 2] != picture[9, 12]).any()  # two cars


def test_sizes_that_differ_are_an_error():
    with pytest.raises(ValueError, match="masks: expected shape"):
        draw_instances(GREY[:5], _instances(), CLASSES)
    panoptic = Panoptic(np.zeros((3, 3), int), np.zeros(1, np.int32), np.ones(1, bool))
    with pytest.raises(ValueError, match="segments: expected shape"):
        draw_panoptic(GREY, panoptic, CLASSES)


def test_pictures_are_drawn_at_another_size():
    panoptic = Panoptic(np.zeros((12, 16), int), np.zeros(1, np.int32), np.ones(1, bool))
    assert draw_panoptic(GREY, panoptic, CLASSES, size=(36, 48)).shape == (36, 48, 3)
    picture = draw_instances(GREY, _instances(), CLASSES, size=(36, 48))
    tinted = (picture != 100).any(-1)
    np.testing.assert_array_equal(tinted, np.kron(_instances().masks[1], np.ones((3, 3), bool)))


def test_objects_of_one_class_alone_differ_in_colour_and_say_no_name():
    objects = _instances()
    alone = Classes(("car",), ((200, 40, 40),))
    objects = Instances(objects.boxes, np.zeros(2, np.int32), objects.valid, masks=objects.masks)
    small, large = draw_instances(GREY, objects, alone, alpha=1.0)[[6, 3], [6, 4]].tolist()
    assert {tuple(small), tuple(large)} == {(230, 159, 0), (86, 180, 233)}
