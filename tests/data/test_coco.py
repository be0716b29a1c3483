import json

import cv2
import numpy as np
import pytest

from segjax.data import eval_batches, train_batches
from segjax.data.coco import Coco
from segjax.data.errors import DataError

SQUARE = {
    "id": 5,
    "image_id": 1,
    "category_id": 3,
    "bbox": [1, 0, 2, 2],
    "area": 4.5,
    "segmentation": [[1, 0, 3, 0, 3, 2, 1, 2]],
}
CROWD = SQUARE | {
    "id": 6,
    "category_id": 7,
    "area": 20,
    "iscrowd": 1,
    "segmentation": {"size": [4, 5], "counts": [0, 20]},
}
COMPRESSED = SQUARE | {"id": 8, "area": 9, "segmentation": {"size": [4, 5], "counts": "4`0"}}


def write(root, annotations, *, images=(1, 2)):
    (root / "images").mkdir(exist_ok=True)
    for name in images:
        cv2.imencode(".png", np.zeros((4, 5, 3), np.uint8))[1].tofile(
            root / "images" / f"{name}.png"
        )
    content = {
        "images": [
            {"id": name, "file_name": f"{name}.png", "height": 4, "width": 5} for name in images
        ],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root


def test_objects_are_those_of_the_file(tmp_path):
    source = Coco(write(tmp_path, [SQUARE, CROWD, COMPRESSED]), None)
    assert source.classes.names == ("cat", "dog")
    assert source.classes.things == (True, True)
    assert source.sizes.tolist() == [[4, 5]] * 2
    full, empty = source.read(0).instances, source.read(1).instances
    assert full.classes.tolist() == [0, 1, 0]
    assert full.crowd.tolist() == [False, True, False]
    assert full.areas.tolist() == [4.5, 20, 9]
    assert full.boxes[0].tolist() == [1, 0, 3, 2]
    assert full.valid.all()
    assert not empty.valid.any()
    square = np.zeros((4, 5), bool)
    square[:2, 1:3] = True
    np.testing.assert_array_equal(full.masks[0], square)
    assert full.masks[1].all()
    assert full.masks[2].sum(axis=0).tolist() == [0, 4, 4, 4, 4]
    assert empty.masks.shape == full.masks.shape == (3, 4, 5)


def test_of_too_many_the_largest_are_kept_and_crowds_go_first(tmp_path):
    path = write(tmp_path, [SQUARE, CROWD, COMPRESSED])
    for most, areas in [(0, []), (1, [9]), (2, [4.5, 9]), (4, [4.5, 20, 9, 0])]:
        instances = Coco(path, None, max_instances=most).read(0).instances
        assert instances.areas.tolist() == areas
        assert instances.valid.tolist() == [area > 0 for area in areas]
    with pytest.raises(ValueError, match="max_instances must be"):
        Coco(path, None, max_instances=-1)


def test_a_split_without_objects_has_tables_without_rows(tmp_path):
    instances = Coco(write(tmp_path, []), None).read(0).instances
    assert instances.masks.shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "image_id 9 is none of the images"),
        ({"category_id": 1}, "category_id 1 is none of the categories"),
        ({"bbox": [1, 2, -3, 4]}, r"bbox is \[1, 2, -3, 4\]; due is"),
        ({"bbox": None}, "bbox is not a list of numbers"),
        ({"area": None}, "area is not a list of numbers"),
        ({"segmentation": None}, "segmentation is neither polygons nor"),
        ({"segmentation": []}, "segmentation is neither polygons nor"),
        ({"segmentation": [[1, 2, 3, 4]]}, "a polygon that is not x0, y0"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "segmentation is not a list of"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "a point more than 65536 pixels away"),
        ({"segmentation": {"size": [5, 4], "counts": [20]}}, "the size 5 x 4 .* its image 4 x 5"),
        ({"segmentation": {"size": [4, 5], "counts": [19]}}, "runs of 19 pixels in all"),
        ({"segmentation": {"size": [4, 5], "counts": "T"}}, "ends within a number"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, change, message):
    path = write(tmp_path, [CROWD, SQUARE | change])
    with pytest.raises(DataError, match=rf"instances.json: .*\n  annotation 5: .*{message}"):
        Coco(path, None)


@pytest.mark.parametrize("box", [[1, 2, 0, 3], [1, 2, 3, 0], [5, 0, 2, 2], [-3, 0, 3, 2]])
def test_an_object_without_area_in_the_image_is_named_and_left_out(tmp_path, box):
    path = write(tmp_path, [CROWD, SQUARE | {"bbox": box}])
    with pytest.warns(UserWarning, match=r"instances.json: without area .* annotation 5$"):
        source = Coco(path, None)
    assert source.read(0).instances.crowd.tolist() == [True]


def test_an_image_that_changes_later_is_named(tmp_path):
    source = Coco(write(tmp_path, []), None)
    cv2.imencode(".png", np.zeros((3, 3), np.uint8))[1].tofile(tmp_path / "images" / "2.png")
    with pytest.raises(DataError, match=r"2\.png: is 3 x 3 pixels .* in the list 4 x 5"):
        source.read(1)


def test_real_masks_have_the_areas_of_their_annotations(data_dir):
    """Roughly: those are of the polygons, not of the pixels."""
    source = Coco(data_dir / "tiny/coco_polygons", None)
    annotated = json.loads((data_dir / "tiny/coco_polygons/instances.json").read_text())
    valid = 0
    for index in range(len(source)):
        instances = source.read(index).instances
        pixels = instances.masks.sum(axis=(1, 2))
        large = instances.valid & ~instances.crowd & (instances.areas > 500)
        np.testing.assert_allclose(pixels[large], instances.areas[large], rtol=0.07)
        valid += instances.valid.sum()
    assert valid == len(annotated["annotations"])


def test_batches_hold_whole_objects_or_what_a_window_shows(data_dir):
    source = Coco(data_dir / "tiny/coco_panoptic", "val", max_instances=6)
    (batch, *_) = eval_batches(source, batch_size=4)
    number, height, width = int(batch.index[0]), *batch.size[0]
    before, after = source.read(number).instances, batch.instances
    np.testing.assert_array_equal(after.masks[0, :, :height, :width], before.masks)
    np.testing.assert_array_equal(after.boxes[0], before.boxes)
    np.testing.assert_array_equal(after.areas[0], before.areas)
    batch = next(iter(train_batches(source, batch_size=3, shape=(50, 60), scale=0.5)))
    assert batch.instances.masks.shape == (3, 6, 50, 60)
    np.testing.assert_array_equal(batch.instances.masks.any(axis=(2, 3)), batch.instances.valid)
