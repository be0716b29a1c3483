import json

import cv2
import numpy as np
import pytest

from segjax.data import CocoPanoptic, eval_batches, train_batches
from segjax.data.errors import DataError

IDS = np.array([[70000, 300, 300], [5, 0, 300]])
SEGMENTS = [
    {"id": 5, "category_id": 2},
    {"id": 300, "category_id": 1, "iscrowd": 1},
    {"id": 9, "category_id": 2},
    {"id": 70000, "category_id": 3},
]


def write(root, *, ids=IDS, segments=SEGMENTS, **change):
    for kind in ("images", "panoptic"):
        (root / "train" / kind).mkdir(parents=True, exist_ok=True)
    bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8)
    cv2.imencode(".png", bgr)[1].tofile(root / "train/panoptic/a.png")
    cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tofile(root / "train/images/a.jpg")
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": segments} | change
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}],
        "annotations": [annotation],
        "categories": [
            {"id": 3, "name": "sky", "isthing": 0},
            {"id": 1, "name": "cat", "isthing": 1},
            {"id": 2, "name": "dog", "isthing": 1},
        ],
    }
    (root / "train" / "panoptic.json").write_text(json.dumps(content))
    return root


def test_colours_are_rows_of_the_table(tmp_path):
    source = CocoPanoptic(write(tmp_path))
    record = source.read(0)
    assert source.classes.names == ("cat", "dog", "sky")
    assert source.classes.things == (True, True, False)
    assert record.panoptic.segments.tolist() == [[3, 1, 1], [0, -1, 1]]
    assert record.panoptic.classes.tolist() == [1, 0, 1, 2]
    assert record.panoptic.valid.tolist() == [True, True, False, True]
    assert record.panoptic.crowd.tolist() == [False, True, False, False]
    assert record.where.tolist() == [[True] * 3, [True, False, True]]
    assert record.labels[record.where].tolist() == [2, 0, 0, 1, 0]
    assert record.size.tolist() == [2, 3]


def test_of_too_many_the_largest_are_kept_and_the_rest_is_void(tmp_path):
    path = write(tmp_path)
    record = CocoPanoptic(path, max_segments=1).read(0)
    assert record.panoptic.segments.tolist() == [[-1, 0, 0], [-1, -1, 0]]
    assert record.panoptic.classes.tolist() == [0]
    assert record.where.sum() == 5
    larger = CocoPanoptic(path, max_segments=6).read(0).panoptic
    assert larger.classes.tolist() == [1, 0, 1, 2, 0, 0]
    assert larger.valid.tolist() == [True, True, False, True, False, False]
    with pytest.raises(ValueError, match="max_segments: expected"):
        CocoPanoptic(path, max_segments=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 2}, r"annotations\[0\]: image_id: expected one of the images, got 2"),
        ({"file_name": "b.png"}, r"panoptic/b\.png: No such file"),
        ({"segments_info": None}, 'expected {"image_id"'),
        ({"segments_info": [{"id": 0, "category_id": 1}]}, "segments_info: expected ids in 1"),
        ({"segments_info": [{"id": True, "category_id": 1}]}, "segments_info: expected ids in 1"),
        ({"segments_info": [SEGMENTS[0] | {"iscrowd": "0"}]}, "segment 5: iscrowd: expected 0 or"),
        ({"file_name": "../images/a.jpg"}, "file_name: expected a path within panoptic"),
        (
            {"segments_info": SEGMENTS[:1] * 2},
            "segments_info: expected ids that differ, got several 5",
        ),
        (
            {"segments_info": [{"id": 4, "category_id": 9}]},
            "segment 4: category_id: expected one of the categories, got 9",
        ),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"panoptic.json: cannot be used:\n .*{message}"):
        CocoPanoptic(write(tmp_path, **change))


def test_an_image_without_annotation_is_named(tmp_path):
    file = write(tmp_path) / "train" / "panoptic.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    with pytest.raises(DataError, match="image 1: expected an annotation"):
        CocoPanoptic(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((2, 3, 3), 7, np.uint8), "expected ids .* got 460551 at row 0, column 0"),
        (np.zeros((2, 3), np.uint8), "expected a PNG with the channels"),
        (np.zeros((3, 3, 3), np.uint8), r"expected 2 x 3 pixels .* as in the list, got 3 x 3"),
    ],
)
def test_a_bad_map_is_named(tmp_path, pixels, message):
    source = CocoPanoptic(write(tmp_path))
    cv2.imencode(".png", pixels)[1].tofile(tmp_path / "train/panoptic/a.png")
    with pytest.raises(DataError, match=rf"a\.png: {message}"):
        source.read(0)


def test_real_segments_are_those_of_the_annotations(data_dir):
    folder = data_dir / "tiny/coco_panoptic"
    source = CocoPanoptic(folder, "val")
    listed = json.loads((folder / "categories.json").read_text())
    assert source.classes.names == tuple(category["name"] for category in listed)
    assert sum(source.classes.things) == 80
    annotated = json.loads((folder / "val/panoptic.json").read_text())["annotations"]
    for index, annotation in enumerate(annotated):
        record = source.read(index)
        segments = annotation["segments_info"]
        areas = np.bincount(record.panoptic.segments[record.where], minlength=len(segments))
        assert areas.tolist() == [segment["area"] for segment in segments]
        assert record.panoptic.valid.sum() == len(segments)
        semantic = cv2.imread(str(folder / "val/semantic" / annotation["file_name"]), -1)
        np.testing.assert_array_equal(np.where(record.where, record.labels, 255), semantic)


def test_batches_hold_whole_segments_or_what_a_window_shows(data_dir):
    source = CocoPanoptic(data_dir / "tiny/coco_panoptic", "val")
    (batch, *_) = eval_batches(source, batch_size=4)
    number, height, width = int(batch.index[0]), *batch.size[0]
    segments = batch.panoptic.segments[0]
    np.testing.assert_array_equal(segments[:height, :width], source.read(number).panoptic.segments)
    assert (segments[height:] == -1).all()
    assert (segments[:, width:] == -1).all()
    batch = next(iter(train_batches(source, batch_size=3, shape=(50, 60), scale=0.5)))
    for segments, valid in zip(batch.panoptic.segments, batch.panoptic.valid, strict=True):
        assert np.flatnonzero(valid).tolist() == np.unique(segments[segments >= 0]).tolist()
