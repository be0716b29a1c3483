"""What is saved of predictions can be read back."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segjax.data import Classes, decode_rle
from segjax.inference import InstancePrediction, PanopticPrediction, SemanticPrediction
from segjax.inference.predictions import crop
from segjax.typing import Instances, Panoptic

CLASSES = Classes(("sky", "car"), ((40, 80, 200), (200, 40, 40)), (False, True))
IMAGE = np.full((8, 10, 3), 100, np.uint8)


def _objects():
    masks = np.zeros((3, 8, 10), bool)
    masks[0, 1:4, 2:6] = masks[1, 5:, 6:] = True
    masks[2, 6:, 8:] = True
    boxes = np.float32([[2, 1, 6, 4], [6, 5, 10, 8], [8, 6, 10, 8]])
    scores = np.float32([0.6, 0.9, 0.2])
    return Instances(boxes, np.ones(3, np.int32), np.ones(3, bool), scores=scores, masks=masks)


def test_objects_come_back_the_surest_first(tmp_path):
    prediction = InstancePrediction(IMAGE, _objects(), CLASSES, 0.5)
    prediction.save(tmp_path / "new" / "a")
    assert [found.score for found in prediction.objects] == pytest.approx([0.9, 0.6])
    first, second = json.loads((tmp_path / "new" / "a.json").read_text())
    assert (first["score"], first["category"], first["bbox"]) == (
        pytest.approx(0.9),
        "car",
        [6, 5, 4, 3],
    )
    mask = decode_rle(second["segmentation"]["counts"], tuple(second["segmentation"]["size"]))
    assert_array_equal(mask, _objects().masks[0])


def test_segments_come_back_by_the_ids_of_their_colours(tmp_path):
    segments = np.zeros((8, 10), np.int32)
    segments[4:] = 300  # an id of two bytes
    segments[:2, :2] = -1
    valid = np.isin(np.arange(301), [0, 300])
    classes = np.where(np.arange(301) == 300, 1, 0).astype(np.int32)
    prediction = PanopticPrediction(IMAGE, Panoptic(segments, classes, valid), CLASSES)
    prediction.save(tmp_path / "a")
    blue, green, red = cv2.imread(str(tmp_path / "a.png")).astype(int).transpose(2, 0, 1)
    ids = red + 256 * green + 65536 * blue
    entries = {entry["id"]: entry for entry in json.loads((tmp_path / "a.json").read_text())}
    assert set(np.unique(ids)) == {0, *entries} == {0, *(x.number for x in prediction.segments)}
    assert_array_equal(ids, prediction.map)
    assert_array_equal(ids == 0, segments == -1)
    assert {e["category"]: (e["isthing"], e["area"]) for e in entries.values()} == {
        "sky": (False, 36),
        "car": (True, 40),
    }


def test_classes_come_back_by_their_ids(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, (8, 10))
    SemanticPrediction(IMAGE, np.eye(2)[labels], CLASSES).save(tmp_path / "a")
    assert_array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), labels)


def test_a_png_holds_ids_of_sixteen_bits(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, (8, 10))
    probs = np.eye(2)[labels]
    for ids, kind in (((8, 255), np.uint8), ((0, 65535), np.uint16)):
        classes = dataclasses.replace(CLASSES, ids=ids)
        SemanticPrediction(IMAGE, probs, classes).save(tmp_path / "a")
        written = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
        assert written.dtype == kind
        assert_array_equal(written, np.array(ids)[labels])
    beyond = SemanticPrediction(IMAGE, probs, dataclasses.replace(CLASSES, ids=(0, 65536)))
    with pytest.raises(ValueError, match=r"expected ids 0..65535 to write a PNG, got 65536"):
        beyond.save(tmp_path / "a")


def test_what_lies_beside_the_picture_is_cut_off():
    objects = crop(_objects(), (5, 7))
    assert objects.masks.shape == (3, 5, 7)
    assert_array_equal(objects.valid, [True, False, False])
    sides = np.float32([[6, 4, 9, 8], [7, 0, 9, 3], [0, 0, 2, 2]])
    boxes = crop(Instances(sides, np.zeros(3, np.int32), np.ones(3, bool)), (5, 7))
    assert_array_equal(boxes.valid, [True, False, True])
    assert_array_equal(boxes.boxes[0], [6, 4, 7, 5])
    segments = np.zeros((8, 10), np.int32)
    segments[6:] = 1
    panoptic = crop(Panoptic(segments, np.zeros(2, np.int32), np.ones(2, bool)), (6, 10))
    assert_array_equal(panoptic.valid, [True, False])
    assert crop(np.zeros((8, 10, 2)), (3, 4)).shape == (3, 4, 2)
