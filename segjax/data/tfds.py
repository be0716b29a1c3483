"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from segjax.data.errors import DataError, prefix_errors
from segjax.data.images import check_max_value, decode_image, decode_mask, image_header
from segjax.data.label_code import LabelCode
from segjax.data.palette import default_colors
from segjax.data.source import Classes, Source
from segjax.suggestions import unknown_name
from segjax.typing import Record

_USUAL_VOID = 255


class _Preset(NamedTuple):
    classes: Sequence[str]
    offset: int = 0
    void: int | None = None


# The trimaps of Oxford-IIIT Pet: 1 is the pet, 2 the background, 3 the border, "not classified".
_PRESETS = {"oxford_iiit_pet": _Preset(("pet", "background"), offset=1, void=3)}


class Tfds(Source):
    """Images and masks of a TFDS data set, prepared on disk in array_record files.

    Class k is written as the value `k + offset` in the masks. `void` and 255 are void, unless 255
    is a class. `Tfds("oxford_iiit_pet")` has defaults: the classes pet and background, and the
    border between them void. For other data sets, `classes` may be left out if the mask is a
    `LabeledImage` with names. A data set is prepared once, with TensorFlow if its builder needs it:

    ```
    tfds.builder("oxford_iiit_pet", file_format="array_record").download_and_prepare()
    ```

    Opening reads the header of every image.

    Images are taken as they are stored: EXIF orientations are ignored, as in TensorFlow.

    Args:
      name: name of the data set, "NAME", "NAME/CONFIG" or "NAME/CONFIG:VERSION".
      split: name of the split, or a part of it such as "train[:80%]".
      data_dir: folder of the data sets; None is TFDS's default, `TFDS_DATA_DIR` or
        ~/tensorflow_datasets.
      image_key: name of the image feature.
      mask_key: name of the mask feature, a PNG of one channel.
      classes: names of the classes.
      offset: mask value of class 0.
      void: mask value that is void.
      max_value: value that becomes 255 in 16-bit images, such as 4095 for 12-bit content; None
        keeps the upper 8 bits.
      progress: function that passes on the sequence of what is checked, and may show the progress.

    Raises:
      DataError: if the data set is missing, is not prepared in array_record files, or lacks a
        feature; when reading, for a broken image, mask or value.
      ValueError: if the names of the classes are not known.

    Example:
      >>> from segjax import data
      >>> data.Tfds("oxford_iiit_cat", data_dir="no/such/folder")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      segjax.data.errors.DataError: ... did you mean 'oxford_iiit_pet'...
    """

    channels = 3

    def __init__(
        self,
        name: str,
        split: str = "train",
        *,
        data_dir: str | Path | None = None,
        image_key: str = "image",
        mask_key: str = "segmentation_mask",
        classes: Sequence[str] | None = None,
        offset: int | None = None,
        void: int | None = None,
        max_value: int | None = None,
        progress: Callable[[Sequence], Iterable] = iter,
    ):
        check_max_value(max_value)
        self._max_value = max_value
        builder = _prepared(name, data_dir)
        if split.partition("[")[0] not in builder.info.splits:
            raise DataError(f"{name}: {unknown_name('split', split, builder.info.splits)}")
        features = builder.info.features
        images = [key for key in features if isinstance(features[key], tfds.features.Image)]
        for key in (image_key, mask_key):
            if key not in images:
                raise DataError(f"{name}: {unknown_name('image feature', key, images)}")
        preset = _PRESETS.get(builder.name, _Preset(_names(features[mask_key])))
        names = preset.classes if classes is None else classes
        offset = preset.offset if offset is None else offset
        void = preset.void if void is None else void
        values = range(offset, offset + len(names))
        if not names:
            raise ValueError(f"classes: expected the names of the classes of {name}, got None")
        if offset < 0 or values[-1] > 65535:
            raise ValueError(
                f"offset: expected one that keeps the classes within 0..65535, got {offset}"
            )
        if void is not None and (void in values or not 0 <= void <= 65535):
            raise ValueError(f"void: expected 0..65535 and no class ({values}), got {void}")

        self.classes = Classes(tuple(names), default_colors(len(names)), ids=tuple(values))
        self._code = LabelCode.of(
            values, void={_USUAL_VOID} if void is None else {_USUAL_VOID, void}
        )
        self._title = f"{name} {split}"
        self._keys = image_key, mask_key
        encoded = {key: tfds.decode.SkipDecoding() for key in images}
        try:
            self._records = builder.as_data_source(split, decoders=encoded)
        except NotImplementedError as error:
            raise DataError(
                f"{name}: expected array_record files; to convert: "
                f"tfds convert_format --dataset_version_dir={builder.data_path} "
                "--out_file_format=array_record"
            ) from error
        with ThreadPoolExecutor() as threads:
            sizes = [threads.submit(self._size, index) for index in range(len(self))]
            self.sizes = np.array([size.result() for size in progress(sizes)], np.int32)

    def __len__(self) -> int:
        return len(self._records)

    def _size(self, index: int) -> tuple[int, int]:
        with prefix_errors(f"{self._title}, example {index}"):
            return image_header(self._records[index][self._keys[0]]).stored

    def read(self, index: int) -> Record:
        """Example `index`: `image` in uint8 RGB, `labels`, `where` and `size`."""
        with prefix_errors(f"{self._title}, example {index}"):
            encoded, mask = (self._records[index][key] for key in self._keys)
            image = decode_image(encoded, upright=False, max_value=self._max_value)
            labels, where = self._code(decode_mask(mask))
            if image.shape[:2] != labels.shape:
                raise DataError(f"expected the mask's shape {labels.shape}, got {image.shape[:2]}")
        return Record(
            image=image, labels=labels, where=where, size=np.array(labels.shape, np.int32)
        )


def _prepared(name: str, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
    """The data set as described by its files, without the code that prepared them."""
    root = tfds.core.Path(data_dir or tfds.core.constants.get_default_data_dir())
    try:
        builder = tfds.builder(name, data_dir=root)
    except tfds.core.registered.DatasetNotFoundError as error:
        there = [folder.name for folder in root.iterdir()] if root.exists() else []
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False))
        message = unknown_name("data set", name, {*there, *near})
        raise DataError(f"{root}: {message}") from error
    if not builder.is_prepared():
        raise DataError(
            f"{name}: expected it in {root}; to prepare it: tfds.builder({name!r}, "
            f"data_dir={str(root)!r}, file_format='array_record').download_and_prepare()"
        )
    return tfds.builder_from_directory(builder.data_path)


def _names(mask: tfds.features.Image) -> Sequence[str]:
    labeled = isinstance(mask, tfds.features.LabeledImage) and mask.num_classes
    return mask.names if labeled else ()
