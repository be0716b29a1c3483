"""No file of a data set, however damaged, ends in anything but a line that names it."""

import contextlib
import json

import cv2
import numpy as np
import pytest
from damage import HOSTILE, survive
from PIL import Image

from segjax.data import Coco, CocoPanoptic, Folder, decode_rle, rasterize_polygons, read_image
from segjax.data.errors import DataError

# Libraries warn of much that they then read, or do not.
pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (12, 16)
COUNT = 60  # of damages to each kind of data set
SMOOTH = (np.add.outer(np.arange(12), np.arange(16))[..., None] * [5, 7, 3]).astype(np.uint8)


def write_images(folder):
    """An image of each format, with an EXIF orientation or with 16 bits where it can have them."""
    folder.mkdir(parents=True)
    tags = Image.Exif()
    tags[0x0112] = 1
    for kind in ("jpg", "webp", "tif", "bmp"):
        Image.fromarray(SMOOTH).save(folder / f"{kind}.{kind}", exif=tags)
    cv2.imwrite(str(folder / "png.png"), SMOOTH)
    cv2.imwrite(str(folder / "deep.png"), SMOOTH.astype(np.uint16) * 256)


def write_pictures(folder):
    write_images(folder / "images")


def read_pictures(folder):
    for file in (folder / "images").iterdir():
        read_image(file)


def write_masks(folder, kind="masks"):
    write_images(folder / "images")
    (folder / kind).mkdir()
    names = [{"id": k, "name": str(k), "color": [k, k, k]} for k in range(3)]
    (folder / "classes.json").write_text(json.dumps({"classes": names, "ignore_index": 2}))
    for number, image in enumerate(sorted((folder / "images").iterdir())):
        mask = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3
        pixels = mask if number % 2 else np.stack([mask] * 3, -1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{image.stem}.png")


def write_instances(folder):
    write_masks(folder, "instances")
    for file in (folder / "instances").iterdir():
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(SHAPE) // 48).save(file)
    (folder / "instances.json").write_text('{"categories": [{"id": 1, "name": "cell"}]}')


def _listed(folder):
    write_images(folder / "images")
    files = sorted((folder / "images").iterdir())
    return [
        {"id": k, "file_name": file.name, "height": 12, "width": 16} for k, file in enumerate(files)
    ]


def write_coco(folder):
    images = _listed(folder)
    shapes = [
        ([[1, 1, 9, 1, 9, 7, 1, 7]], 0),
        ({"size": [12, 16], "counts": [20, 30, 142]}, 1),
        ({"size": [12, 16], "counts": "d0n0^4"}, 0),
    ]
    annotations = [
        {"id": k, "image_id": k, "category_id": 3, "bbox": [1, 1, 8, 6], "area": 48}
        | {"segmentation": shape, "iscrowd": crowd}
        for k, (shape, crowd) in enumerate(shapes)
    ]
    categories = [{"id": 3, "name": "cat", "isthing": 1, "color": [1, 2, 3]}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def write_panoptic(folder):
    images = _listed(folder)
    (folder / "panoptic").mkdir()
    ids = np.zeros((*SHAPE, 3), np.uint8)
    ids[:6, :, 0] = 5
    annotations = []
    for each in images:
        name = f"{each['id']}.png"
        Image.fromarray(ids).save(folder / "panoptic" / name)
        segments = [{"id": 5, "category_id": 3, "iscrowd": 0}]
        annotations.append({"image_id": each["id"], "file_name": name, "segments_info": segments})
    categories = [{"id": 3, "name": "cat", "isthing": 1}, {"id": 1, "name": "sky", "isthing": 0}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))


def reading(source):
    """A reader that opens a source, and reads all examples."""

    def read(folder):
        opened = source(folder, None)
        for index in range(len(opened)):
            opened.read(index)

    return read


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("write", "read"),
    [
        (write_pictures, read_pictures),
        (write_masks, reading(Folder)),
        (write_instances, reading(Folder)),
        (write_coco, reading(Coco)),
        (write_panoptic, reading(CocoPanoptic)),
    ],
    ids=["pictures", "masks", "instances", "coco", "panoptic"],
)
def test_damage_is_said(write, read, tmp_path):
    write(tmp_path / "data")
    errors = survive(read, tmp_path / "data", count=COUNT, expected=(DataError,))
    assert errors > COUNT // 4


@pytest.mark.usefixtures("unchecked_shapes")
def test_no_runs_or_points_end_the_process():
    generator = np.random.default_rng(0)
    values = [value for value in HOSTILE if isinstance(value, int | float)]
    values += list(range(20))
    characters = [chr(code) for code in range(40, 120)]
    read = 0
    for _ in range(1000):
        count = generator.integers(1, 9)
        runs = [values[k] for k in generator.integers(len(values), size=count)]
        text = "".join(generator.choice(characters, count))
        for decode, given in (
            (decode_rle, runs),
            (decode_rle, text),
            (rasterize_polygons, [runs]),
        ):
            with contextlib.suppress(DataError):
                assert decode(given, SHAPE).shape == SHAPE
                read += 1
    assert read > 0
