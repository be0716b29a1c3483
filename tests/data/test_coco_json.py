import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from segjax.data.coco_json import each_checked, find_layout, read_coco_json
from segjax.data.errors import DataError

CATEGORIES = [
    {"id": 7, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
    {"id": 3, "name": "cat", "isthing": 1},
]


def write(root, *, count=2, **changes):
    """A list of images of 4 x 5 pixels."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    listed = []
    for name in range(count):
        encoded = cv2.imencode(".png", np.full((4, 5), name, np.uint8))[1]
        encoded.tofile(root / "images" / f"{name}.png")
        listed.append({"id": name + 10, "file_name": f"{name}.png", "height": 4, "width": 5})
    content = {"images": listed, "annotations": [], "categories": CATEGORIES} | changes
    (root / "instances.json").write_text(json.dumps(content))
    return find_layout(root, None, "instances")


def test_categories_are_numbered_in_the_order_of_their_ids(tmp_path):
    content = read_coco_json(write(tmp_path))
    assert content.classes.names == ("cat", "sky")
    assert content.classes.things == (True, False)
    assert content.classes.colors[1] == (1, 2, 3)
    assert content.classes.ids == (3, 7)
    assert content.class_of == {3: 0, 7: 1}
    assert list(content.images) == [10, 11]
    assert content.images[11].read().tolist() == np.full((4, 5, 3), 1).tolist()


def test_files_lie_as_in_this_layout_or_in_that_of_the_archives(tmp_path):
    for file in ("val/panoptic.json", "annotations/panoptic_train2017.json"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    own = find_layout(tmp_path, "val", "panoptic")
    assert (own.images, own.maps) == (tmp_path / "val/images", tmp_path / "val/panoptic")
    for split in ("train", "train2017"):
        layout = find_layout(tmp_path, split, "panoptic")
        assert layout.file == tmp_path / "annotations/panoptic_train2017.json"
        assert layout.images == tmp_path / "train2017"
        assert layout.maps == tmp_path / "annotations/panoptic_train2017"
    (tmp_path / "panoptic_train2017").mkdir()
    assert find_layout(tmp_path, "train", "panoptic").maps == tmp_path / "panoptic_train2017"
    with pytest.raises(
        DataError, match=r"expected test/panoptic.json in it, got annotations/panoptic_train"
    ):
        find_layout(tmp_path, "test", "panoptic")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, r"instances\.json: expected \{"),
        ({"images": []}, r"instances\.json: images: expected at least one"),
        ({"images": [{"id": 1}]}, r"images\[0\]: expected"),
        ({"images": [{"id": 1, "file_name": "0.png", "height": -1, "width": 5}]}, "expected"),
        ({"images": [{"id": 1, "file_name": "0.png", "height": 2**63, "width": 5}]}, "expected"),
        (
            {"images": [{"id": 1, "file_name": "0.png", "height": 4, "width": 5}] * 2},
            "ids that differ",
        ),
        ({"categories": [{"id": 1}]}, "categories: expected"),
        ({"categories": [{"id": True, "name": "a"}]}, "categories: expected"),
        ({"categories": [{"id": 2**31, "name": "a"}]}, "categories: expected"),
        ({"categories": [{"id": 1, "name": "\ud800"}]}, "categories: expected"),
        ({"categories": [{"id": 1, "name": "a", "color": "red"}]}, "the color of 'a': expected"),
        ({"categories": [{"id": 1, "name": "a", "isthing": "0"}]}, "isthing: expected 0 or 1"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "categories: expected ids that differ"),
    ],
)
def test_what_is_malformed_is_an_error(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read_coco_json(write(tmp_path, **changes))


def test_every_bad_image_is_named_and_of_many_the_first(tmp_path):
    layout = write(tmp_path, count=4)
    folder = tmp_path / "images"
    (folder / "0.png").unlink()
    (folder / "1.png").write_text("no image")
    cv2.imencode(".png", np.zeros((4, 6), np.uint8))[1].tofile(folder / "2.png")
    with pytest.raises(DataError) as error:
        read_coco_json(layout)
    first, *lines = map(str.strip, str(error.value).splitlines())
    assert first == f"{tmp_path / 'instances.json'}: cannot be used:"
    assert lines == [
        f"{folder / '0.png'}: No such file or directory",
        f"{folder / '1.png'}: expected an image, got a file of unknown format",
        f"{folder / '2.png'}: expected 4 x 5 pixels (height x width), as in the list, got "
        "4 x 6 pixels (height x width)",
    ]
    many = [{"id": i, "file_name": f"{i}.x", "height": 1, "width": 1} for i in range(50)]
    with pytest.raises(DataError, match="and 30 more"):
        read_coco_json(write(tmp_path, images=many))


def test_annotations_that_are_no_objects_are_named():
    with pytest.raises(DataError, match=r"annotations\[1\]: expected \{\.\.\.\}, got 7"):
        list(each_checked(Path("a.json"), [{"id": 1}, 7], lambda entry: entry))
