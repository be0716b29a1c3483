import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

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
    with pytest.raises(ValueError, match="max_instances: expected"):
        Coco(path, None, max_instances=-1)


def test_a_split_without_objects_has_tables_without_rows(tmp_path):
    instances = Coco(write(tmp_path, []), None).read(0).instances
    assert instances.masks.shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "image_id: expected one of the images, got 9"),
        ({"image_id": True}, "image_id: expected one of the images, got True"),
        ({"image_id": [1]}, r"image_id: expected one of the images, got \[1\]"),
        ({"category_id": 1}, "category_id: expected one of the categories, got 1"),
        ({"category_id": "3"}, "category_id: expected one of the categories, got '3'"),
        ({"iscrowd": "0"}, "iscrowd: expected 0 or 1, got '0'"),
        ({"iscrowd": 2}, "iscrowd: expected 0 or 1, got 2"),
        ({"bbox": [1, 2, -3, 4]}, r"bbox: expected \[x, y, width, height\], got \[1, 2, -3, 4"),
        ({"bbox": None}, "bbox: expected a list of numbers"),
        ({"bbox": ["1", "0", "2", "2"]}, "bbox: expected a list of numbers"),
        ({"bbox": [1, 0, 2, 10**400]}, "bbox: expected a list of numbers within ±16777216"),
        ({"bbox": [1, 0, 2, 1e300]}, "bbox: expected a list of numbers within ±16777216"),
        ({"area": "4.5"}, "area: expected a list of numbers"),
        ({"area": True}, "area: expected a list of numbers"),
        ({"segmentation": 5}, 'segmentation: expected polygons or {"size", "counts"}'),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "segmentation: expected x0, y0, x1, y1"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "segmentation: expected a list of"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "numbers within ±65536"),
        ({"segmentation": [[0, 0, 60000, 0] * 20]}, "outlines of at most 1048576 pixels"),
        (
            {"segmentation": {"size": [5, 4], "counts": [20]}},
            "expected the image.s size 4 x 5 .* got 5 x 4",
        ),
        ({"segmentation": {"size": [4, 5], "counts": [19]}}, "got runs of 0 to 19"),
        ({"segmentation": {"size": [4, 5], "counts": [2**64, 20]}}, "integers of up to 64 bits"),
        ({"segmentation": {"size": [4, 5], "counts": "T"}}, "ends within a number"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, change, message):
    path = write(tmp_path, [CROWD, SQUARE | change])
    with pytest.raises(DataError, match=rf"instances.json: .*\n  annotation 5: .*{message}"):
        Coco(path, None)


FLAWS = [
    *(({"bbox": box}, "left out, without area") for box in ([1, 2, 0, 3], [5, 0, 2, 2])),
    *(({"bbox": box}, "left out, without area") for box in ([1, 2, 3, 0], [-3, 0, 3, 2])),
    *(
        ({"segmentation": shape}, "left out, without a mask")
        for shape in (None, [], [[1, 0, 3, 2]])
    ),
]


@pytest.mark.parametrize(("change", "flaw"), FLAWS)
def test_what_is_no_object_is_left_out_and_said(tmp_path, change, flaw):
    path = write(tmp_path, [CROWD, SQUARE | change])
    with pytest.warns(UserWarning, match=rf"instances.json: 1 of 2 annotations {flaw}.*: 5$"):
        source = Coco(path, None)
    assert source.read(0).instances.crowd.tolist() == [True]
    with pytest.raises(DataError, match=rf"annotation 5: {flaw}"):
        Coco(path, None, strict=True)
    with pytest.raises(DataError, match=rf"annotation 5: {flaw}"):  # there is no other object
        Coco(write(tmp_path, [SQUARE | change]), None)


def test_numbers_are_one_polygon(tmp_path):
    path = write(tmp_path, [SQUARE | {"segmentation": SQUARE["segmentation"][0]}])
    with pytest.warns(UserWarning, match=r"1 of 1 annotations read as one polygon, no list .*: 5$"):
        masks = Coco(path, None).read(0).instances.masks
    np.testing.assert_array_equal(
        masks, Coco(write(tmp_path, [SQUARE]), None).read(0).instances.masks
    )


def test_few_shades_of_sixteen_bits_are_said_and_may_be_spread(tmp_path):
    path = write(tmp_path, [])
    deep = cv2.imencode(".png", np.full((4, 5), 2800, np.uint16))[1]
    deep.tofile(tmp_path / "images" / "2.png")
    with pytest.warns(UserWarning, match=r"2\.png: this 16-bit image has no value above 2800"):
        assert Coco(path, None).read(1).image.max() == 10
    assert Coco(path, None, max_value=4095).read(1).image.max() == 174


@pytest.mark.parametrize("each", [SQUARE, CROWD, COMPRESSED])
@pytest.mark.parametrize("missing", [{}, {"area": None}])
def test_an_area_that_is_missing_is_the_masks(tmp_path, each, missing):
    each = {key: value for key, value in each.items() if key != "area"} | missing
    instances = Coco(write(tmp_path, [each]), None).read(0).instances
    assert instances.areas.tolist() == [instances.masks.sum()]


@pytest.mark.parametrize("file", ["../1.png", "/etc/passwd", "a/../../1.png", "", "a\0", "\ud800"])
def test_images_lie_within_the_data_set(tmp_path, file):
    path = write(tmp_path, [])
    content = json.loads((path / "instances.json").read_text())
    content["images"][0]["file_name"] = file
    (path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"images\[0\]: file_name: expected a path within images"):
        Coco(path, None)


def _turned(root, orientation, shape, listed):
    """An image with an orientation, its stored pixels' values 0, 1, 2 ..., and its listed size."""
    path, tags = write(root, [], images=(1,)), Image.Exif()
    tags[0x0112] = orientation
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    Image.fromarray(pixels).save(root / "images/1.png", exif=tags)
    content = json.loads((path / "instances.json").read_text())
    content["images"][0] |= {"height": listed[0], "width": listed[1]}
    (path / "instances.json").write_text(json.dumps(content))
    return path, pixels


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_image_is_turned_as_it_is_listed(tmp_path, orientation):
    path, pixels = _turned(tmp_path, orientation, (3, 7), listed=(3, 7))
    np.testing.assert_array_equal(Coco(path, None).read(0).image[..., 0], pixels)
    path, _ = _turned(tmp_path, orientation, (3, 7), listed=(7, 3))
    turned = ImageOps.exif_transpose(Image.open(tmp_path / "images/1.png"))
    np.testing.assert_array_equal(Coco(path, None).read(0).image[..., 0], turned)


@pytest.mark.parametrize(("orientation", "shape"), [(2, (3, 7)), (3, (3, 7)), (6, (4, 4))])
def test_an_orientation_that_cannot_be_told_is_an_error(tmp_path, orientation, shape):
    path, _ = _turned(tmp_path, orientation, shape, listed=shape)
    with pytest.raises(
        DataError,
        match=rf"1\.png: expected an upright image, got the EXIF orientation {orientation}",
    ):
        Coco(path, None)


def test_an_image_that_changes_later_is_named(tmp_path):
    source = Coco(write(tmp_path, []), None)
    cv2.imencode(".png", np.zeros((3, 3), np.uint8))[1].tofile(tmp_path / "images" / "2.png")
    with pytest.raises(
        DataError, match=r"2\.png: expected 4 x 5 pixels .* as in the list, got 3 x 3"
    ):
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
