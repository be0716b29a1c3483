import io
import json
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from segjax.data.errors import DataError
from segjax.data.folder import Folder

SIZES = [(4, 5), (6, 3), (2, 7)]


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def oriented(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_reads_what_was_written(write_folder):
    source = Folder(write_folder(SIZES), "train")
    assert source.sizes.tolist() == [list(size) for size in SIZES]
    assert source.classes.names == ("sky", "road", "car")
    assert len(source) == len(SIZES)
    for index, size in enumerate(SIZES):
        record = source.read(index)
        assert record.image.shape == (*size, 3)
        assert record.size.tolist() == list(size)
        np.testing.assert_array_equal(record.where, record.image[..., 0] != 255)
        np.testing.assert_array_equal(
            record.image[record.where], 80 * record.labels[record.where][:, None].repeat(3, 1)
        )


def test_splits_are_folders_and_optional(write_folder):
    path = write_folder(SIZES)
    write_folder(SIZES[:1], split="val")
    write_folder(SIZES[:2], split="")
    assert [len(Folder(path, split)) for split in ("train", "val", None, "")] == [3, 1, 2, 2]
    with pytest.raises(DataError, match="unknown split 'trian': did you mean 'train'"):
        Folder(path, "trian")


def test_color_masks_follow_the_palette(tmp_path):
    classes = [
        {"id": 0, "name": "sky", "color": [255, 0, 0]},
        {"id": 1, "name": "road", "color": [0, 0, 255]},
        {"id": 2, "name": "void", "color": [0, 0, 0]},
    ]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 2}))
    mask = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)
    save(tmp_path / "images" / "a.png", mask)
    save(tmp_path / "masks" / "a.png", mask)
    record = Folder(tmp_path, None).read(0)
    assert record.labels.tolist() == [[0, 1, 0]]
    assert record.where.tolist() == [[True, True, False]]
    mask[0, 1] = 1, 2, 3
    save(tmp_path / "masks" / "a.png", mask)
    with pytest.raises(
        DataError, match=r"a.png: expected colours .* got \(1, 2, 3\) at row 0, column 1"
    ):
        Folder(tmp_path, None)


def test_a_void_value_can_be_given(write_folder):
    source = Folder(write_folder(SIZES), void=0)
    assert source.classes.names == ("road", "car")
    record = source.read(0)
    values = record.image[..., 0]
    np.testing.assert_array_equal(record.where, (values == 80) | (values == 160))
    with pytest.raises(ValueError, match=r"void: expected 0\.\.65535"):
        Folder(write_folder(SIZES), void=-1)


def test_instances_are_objects_on_a_background(write_folder):
    path = write_folder(SIZES, masks="instances")
    (path / "classes.json").unlink()
    (path / "train" / "instances.json").write_text('{"categories": [{"name": "nucleus"}]}')
    source = Folder(path)
    assert source.classes.names == ("background", "nucleus")
    record = source.read(1)
    np.testing.assert_array_equal(record.labels, record.image[..., 0] > 0)
    assert record.where.all()


def test_every_object_is_a_segment_and_the_background_another(tmp_path):
    for name, mask in [("a", [[0, 9, 9], [300, 7, 300]]), ("b", [[5, 7]])]:
        mask = np.array(mask, np.uint16)
        save(tmp_path / "instances" / f"{name}.png", mask)
        save(tmp_path / "images" / f"{name}.png", mask.astype(np.uint8))
    source = Folder(tmp_path, None, void=7)
    assert source.classes.things == (False, True)
    full, single = source.read(0).panoptic, source.read(1).panoptic
    assert full.segments.tolist() == [[0, 1, 1], [2, -1, 2]]
    assert single.segments.tolist() == [[1, -1]]
    assert full.valid.tolist() == [True, True, True]
    assert single.valid.tolist() == [False, True, False]
    assert full.classes.tolist() == single.classes.tolist() == [0, 1, 1]
    save(tmp_path / "instances" / "b.png", np.array([[1, 2], [3, 4]], np.uint16))
    with pytest.raises(DataError, match=r"b\.png: expected 2 objects at most, .* got 4"):
        source.read(1)


def test_masks_go_before_instances(write_folder):
    write_folder(SIZES, masks="instances")
    assert Folder(write_folder(SIZES)).classes.names == ("sky", "road", "car")


def test_paths_may_have_any_letters(write_folder):
    path = write_folder(SIZES).rename(write_folder([]).parent / "Bögen 図")
    for kind in ("images", "masks"):
        (path / "train" / kind / "000.png").rename(path / "train" / kind / "ça.png")
    assert Folder(path).read(2).image.shape == (4, 5, 3)


def test_hidden_files_are_not_seen(write_folder):
    path = write_folder(SIZES)
    (path / "train" / "images" / ".DS_Store").write_bytes(b"x")
    (path / "train" / "masks" / ".ipynb_checkpoints").mkdir()
    assert len(Folder(path)) == 3


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_orientation_never_misaligns_image_and_mask(tmp_path, orientation):
    picture = np.arange(40, dtype=np.uint8).reshape(5, 8)
    (tmp_path / "classes.json").write_text(json.dumps([str(value) for value in range(40)]))
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG", exif=oriented(orientation))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded.getvalue())
    turned = np.asarray(ImageOps.exif_transpose(Image.open(encoded)))
    for mask in (picture, turned):  # drawn on the pixels as stored, and as a viewer shows them
        save(tmp_path / "masks" / "a.png", mask)
        record = Folder(tmp_path, None).read(0)
        np.testing.assert_array_equal(record.image[..., 0], record.labels)


@pytest.mark.parametrize(("orientation", "shape"), [(3, (5, 8)), (2, (5, 8)), (6, (5, 5))])
def test_an_orientation_that_cannot_be_told_is_an_error(tmp_path, orientation, shape):
    (tmp_path / "classes.json").write_text('["sky"]')
    save(tmp_path / "images" / "a.jpg", np.zeros(shape, np.uint8), exif=oriented(orientation))
    save(tmp_path / "masks" / "a.png", np.zeros(shape, np.uint8))
    with pytest.raises(
        DataError, match=f"a.jpg: expected an upright image, got the EXIF orientation {orientation}"
    ):
        Folder(tmp_path, None)


def test_few_shades_of_sixteen_bits_are_said_and_may_be_spread(write_folder):
    path = write_folder(SIZES[:1])
    image = path / "train/images/000.png"
    cv2.imencode(".png", np.full(SIZES[0], 2800, np.uint16))[1].tofile(image)
    with pytest.warns(
        UserWarning, match=r"000\.png: this 16-bit image .* above 2800, .* 11 shades.* 4095"
    ):
        assert Folder(path).read(0).image.max() == 10
    assert Folder(path, max_value=4095).read(0).image.max() == 174
    with pytest.raises(ValueError, match=r"max_value: expected 1\.\.65535"):
        Folder(path, max_value=0)
    cv2.imencode(".png", np.full(SIZES[0], 40000, np.uint16))[1].tofile(image)
    Folder(path)  # without a warning, which would be an error


def test_all_bad_files_are_named_at_once(write_folder):
    path = write_folder([(4, 5)] * 10)
    images, masks = path / "train" / "images", path / "train" / "masks"
    (masks / "000.png").unlink()
    (images / "001.png").unlink()
    (images / "002.png").write_bytes(b"")
    (images / "003.png").write_bytes((images / "003.png").read_bytes()[:40])
    (masks / "004.png").write_bytes((masks / "004.png").read_bytes()[:60])
    (masks / "005.png").write_text("no image")
    save(images / "006.png", np.zeros((4, 6), np.uint8))
    save(masks / "007.png", np.full((4, 5), 3, np.uint8))
    save(images / "008.jpg", np.zeros((4, 5), np.uint8))
    (images / "folder").mkdir()
    with pytest.raises(DataError) as error:
        Folder(path)
    named = {
        f"{images / '000.png'}: expected a mask masks/000.png, got none",
        f"{masks / '001.png'}: expected an image images/001.*, got none",
        f"{images / '002.png'}: expected an image, got an empty file",
        f"{images / '003.png'}: expected an image",
        f"{masks / '004.png'}: expected an image",
        f"{masks / '005.png'}: expected an image",
        f"{images / '006.png'}: expected 4 x 5 pixels (height x width), as its mask, got 4 x 6",
        f"{masks / '007.png'}: expected a class or void (classes: 0..2; void: 255), got",
        f"{images / '008.jpg'}, {images / '008.png'}, {masks / '008.png'}: expected names",
        f"{images / 'folder'}: expected a mask masks/folder.png, got none",
    }
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == len(named)
    for name in named:
        assert any(line.strip().startswith(name) for line in lines), name


def test_what_is_missing_is_named(write_folder, tmp_path):
    with pytest.raises(DataError, match="none: No such folder"):
        Folder(tmp_path / "none")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="train: expected an images folder"):
        Folder(tmp_path)
    (tmp_path / "train" / "images").mkdir()
    with pytest.raises(DataError, match="expected a masks or an instances folder"):
        Folder(tmp_path)
    with pytest.raises(
        DataError, match=r"expected an images folder in it; it has the splits train"
    ):
        Folder(tmp_path, None)
    with pytest.raises(DataError, match="images: expected images in it, got none"):
        Folder(write_folder([]))
    (tmp_path / "classes.json").unlink()
    with pytest.raises(DataError, match=r"classes\.json: No such file"):
        Folder(tmp_path)


def test_a_file_that_changes_later_is_named(write_folder):
    path = write_folder(SIZES)
    source = Folder(path)
    save(path / "train" / "images" / "001.png", np.zeros((9, 9), np.uint8))
    (path / "train" / "masks" / "002.png").unlink()
    with pytest.raises(
        DataError, match=r"images/001\.png: expected the mask's .* got 9 x 9 pixels"
    ):
        source.read(1)
    with pytest.raises(DataError, match=r"masks/002\.png: No such file"):
        source.read(2)


def test_survives_pickling(write_folder):
    source = Folder(write_folder(SIZES))
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(0).image, source.read(0).image)
    assert copy.classes == source.classes


@pytest.mark.parametrize(
    ("name", "classes", "void"),
    [("tiny/camvid", 11, True), ("tiny/dsb2018", 2, False), ("tiny/pennfudan", 2, False)],
)
def test_real_data_opens_and_reads(data_dir, name, classes, void):
    source = Folder(data_dir / name)
    records = [source.read(index) for index in range(len(source))]
    assert len(source.classes) == classes
    assert [list(record.image.shape[:2]) for record in records] == source.sizes.tolist()
    assert {int(label) for record in records for label in np.unique(record.labels)} <= set(
        range(classes)
    )
    assert any(not record.where.all() for record in records) == void


@pytest.mark.parametrize("name", ["tiny/dsb2018", "tiny/pennfudan"])
def test_objects_are_those_of_the_annotations(data_dir, name):
    annotated = json.loads((data_dir / name / "val/instances.json").read_text())
    source = Folder(data_dir / name, "val")
    areas = []
    for index in range(len(source)):
        record = source.read(index)
        panoptic = record.panoptic
        np.testing.assert_array_equal(panoptic.segments > 0, record.labels == 1)
        areas += np.bincount(panoptic.segments[panoptic.segments > 0])[1:].tolist()
        assert panoptic.valid[1:].sum() == panoptic.segments.max()
    assert sorted(areas) == sorted(each["area"] for each in annotated["annotations"])


def test_camvid_is_what_opencv_reads(data_dir):
    source = Folder(data_dir / "tiny/camvid", "val")
    name = sorted((data_dir / "tiny/camvid/val/images").iterdir())[0]
    record = source.read(0)
    np.testing.assert_array_equal(record.image[..., ::-1], cv2.imread(str(name)))
    mask = cv2.imread(str(data_dir / "tiny/camvid/val/masks" / f"{name.stem}.png"), -1)
    np.testing.assert_array_equal(record.where, mask != 11)
    np.testing.assert_array_equal(record.labels[record.where], mask[mask != 11])
