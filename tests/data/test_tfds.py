import io
import pickle

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from segjax.commands.results import provide_classes
from segjax.data import Folder
from segjax.data.errors import DataError
from segjax.data.tfds import Tfds
from segjax.inference import SemanticPrediction
from segjax.viz import save_image

SIZES = [(4, 5), (6, 3), (2, 7), (5, 5)]


def trimap(size):
    """1 pet, 2 background, 3 border, as Oxford-IIIT Pet has it."""
    return np.random.default_rng(size[0]).integers(1, 4, size).astype(np.uint8)


def png(pixels):
    return io.BytesIO(cv2.imencode(".png", pixels)[1].tobytes())


class OxfordIiitPet(tfds.core.GeneratorBasedBuilder):
    """A small data set of the name and the features of the real one."""

    VERSION = tfds.core.Version("4.0.0")
    SKIP_REGISTERING = True

    def _info(self):
        mask = tfds.features.Image(shape=(None, None, 1), use_colormap=True)
        named = tfds.features.LabeledImage(labels=["none", "a", "b", "c"])
        features = {"image": tfds.features.Image(), "segmentation_mask": mask, "named": named}
        features |= {"number": tfds.features.Scalar(np.int64)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {"train": self._generate_examples(SIZES), "test": self._generate_examples(SIZES[:1])}

    def _generate_examples(self, sizes):
        for number, size in enumerate(sizes):
            mask = trimap(size)
            image = np.dstack([mask, np.zeros_like(mask), np.full_like(mask, number)])
            yield (
                number,
                {
                    "image": png(image[..., ::-1]),
                    "segmentation_mask": png(mask),
                    "named": png(mask),
                    "number": number,
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    OxfordIiitPet(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def test_the_pets_are_pet_and_background_and_their_border_void(prepared):
    source = Tfds("oxford_iiit_pet", data_dir=prepared)
    assert source.classes.names == ("pet", "background")
    assert len(source) == len(SIZES)
    numbers = set()
    for index in range(len(source)):
        record = source.read(index)
        values = record.image[..., 0]
        np.testing.assert_array_equal(record.where, values != 3)
        np.testing.assert_array_equal(record.labels[record.where], values[record.where] - 1)
        assert record.image.shape[:2] == tuple(source.sizes[index]) == tuple(record.size)
        numbers.add(int(record.image[0, 0, 2]))
    assert numbers == set(range(len(SIZES)))


def test_predicted_labels_are_written_in_its_ids_and_come_back(prepared, tmp_path):
    source = Tfds("oxford_iiit_pet", data_dir=prepared)
    records = [source.read(k) for k in range(len(source))]
    for k, record in enumerate(records):
        probs = np.eye(2, dtype=np.float32)[record.labels]
        SemanticPrediction(record.image, probs, source.classes).save(tmp_path / f"masks/{k}")
        (tmp_path / f"masks/{k}_overlay.png").unlink()
        written = cv2.imread(str(tmp_path / f"masks/{k}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written[record.where], record.image[..., 0][record.where])
        (tmp_path / "images").mkdir(exist_ok=True)
        save_image(tmp_path / f"images/{k}.png", record.image)
    provide_classes(tmp_path / "classes.json", source.classes)
    again = Folder(tmp_path, None)
    assert again.classes == source.classes
    for k, record in enumerate(records):
        np.testing.assert_array_equal(again.read(k).labels, record.labels)


def test_splits_are_those_of_tfds(prepared):
    assert len(Tfds("oxford_iiit_pet", "test", data_dir=prepared)) == 1
    assert len(Tfds("oxford_iiit_pet", "train[:50%]", data_dir=prepared)) == 2
    with pytest.raises(DataError, match=r"unknown split 'tset': did you mean 'test'\?"):
        Tfds("oxford_iiit_pet", "tset", data_dir=prepared)


def test_the_code_of_the_masks_can_be_given(prepared):
    source = Tfds(
        "oxford_iiit_pet", data_dir=prepared, classes=("background", "border"), offset=2, void=1
    )
    record = source.read(0)
    values = record.image[..., 0]
    np.testing.assert_array_equal(record.where, values != 1)
    np.testing.assert_array_equal(record.labels[record.where], values[record.where] - 2)


def test_names_come_from_the_feature(prepared, monkeypatch):
    monkeypatch.setattr("segjax.data.tfds._PRESETS", {})
    source = Tfds("oxford_iiit_pet", data_dir=prepared, mask_key="named")
    assert source.classes.names == ("none", "a", "b", "c")
    record = source.read(0)
    np.testing.assert_array_equal(record.labels, record.image[..., 0])
    with pytest.raises(
        ValueError, match="classes: expected the names of the classes of oxford_iiit_pet"
    ):
        Tfds("oxford_iiit_pet", data_dir=prepared)


def test_a_value_of_no_class_is_named_with_its_example(prepared):
    source = Tfds("oxford_iiit_pet", data_dir=prepared, classes=("pet",), void=3)
    with pytest.raises(
        DataError,
        match=r"oxford_iiit_pet train, example 0: expected a class .* got the value 2",
    ):
        source.read(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"void": 2}, "void: expected .* got 2"),
        ({"void": -1}, "void: expected .* got -1"),
        ({"offset": -1}, "offset: expected one that keeps"),
        ({"offset": 65535}, "offset: expected one that keeps"),
        ({"mask_key": "segmentation"}, "unknown image feature 'segmentation': did you mean"),
        ({"image_key": "number"}, "unknown image feature 'number'"),
    ],
)
def test_options_that_do_not_fit_are_named(prepared, options, message):
    with pytest.raises(ValueError, match=message):
        Tfds("oxford_iiit_pet", data_dir=prepared, **options)


def test_names_that_do_not_exist_bring_up_those_that_do(prepared, tmp_path):
    with pytest.raises(DataError, match="unknown data set 'oxford_pet': did you mean 'oxford_iiit"):
        Tfds("oxford_pet", data_dir=prepared)
    with pytest.raises(DataError, match="unknown data set"):
        Tfds("oxford_pet", data_dir=tmp_path / "none")


def test_what_is_not_prepared_says_how_to(tmp_path):
    with pytest.raises(DataError, match=r"file_format='array_record'\).download_and_prepare"):
        Tfds("oxford_iiit_pet", data_dir=tmp_path)


def test_files_without_random_access_are_to_be_converted(prepared, tmp_path):
    folder = tmp_path / "oxford_iiit_pet" / "4.0.0"
    folder.mkdir(parents=True)
    for file in (prepared / "oxford_iiit_pet" / "4.0.0").iterdir():
        (folder / file.name).write_bytes(
            file.read_bytes().replace(b"array_record", b"tfrecord")
            if file.suffix == ".json"
            else file.read_bytes()
        )
    with pytest.raises(DataError, match="tfds convert_format"):
        Tfds("oxford_iiit_pet", data_dir=tmp_path)


def test_survives_pickling(prepared):
    source = Tfds("oxford_iiit_pet", data_dir=prepared)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(2).image, source.read(2).image)
    np.testing.assert_array_equal(copy.sizes, source.sizes)
