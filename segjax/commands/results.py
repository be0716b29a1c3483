"""The results of `predict` for a whole set of images, in COCO's formats."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segjax.files import write_file

if TYPE_CHECKING:  # `--help` need not wait for OpenCV
    from segjax.data import Classes
    from segjax.data.coco_json import CocoImage
    from segjax.inference.predictions import Prediction


class Results:
    """Collects the predictions of a set of images.

    Args:
      classes: classes of the predictions.
      ids: ids of the images, by file.
    """

    def __init__(self, classes: "Classes", ids: dict[pathlib.Path, int]):
        self._classes, self._ids = classes, ids
        self._objects: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        self._maps: list[dict[str, Any]] = []

    def add(self, file: pathlib.Path, name: str, prediction: "Prediction") -> None:
        """Adds the prediction of an image, which is saved under a name."""
        from segjax.inference import InstancePrediction, PanopticPrediction

        image = {"image_id": self._ids[file]}
        match prediction:
            case InstancePrediction():
                self._objects += [image | entry for entry in prediction.annotations()]
            case PanopticPrediction():
                height, width = prediction.image.shape[:2]
                size = {"height": height, "width": width}
                self._images.append({"id": self._ids[file], "file_name": file.name} | size)
                segments = prediction.annotations()
                self._maps.append(image | {"file_name": f"{name}.png", "segments_info": segments})

    def write_objects(self, path: pathlib.Path) -> None:
        """Writes the objects of all images as a list, which pycocotools loads."""
        write_file(path, json.dumps(self._objects) + "\n")

    def write_segments(self, path: pathlib.Path) -> None:
        """Writes the segments of all images, which panopticapi loads; their PNGs lie beside."""
        classes = self._classes
        things = classes.things or (False,) * len(classes)
        categories = [
            {"id": number, "name": name, "isthing": int(thing), "color": list(color)}
            for number, name, thing, color in zip(
                classes.ids, classes.names, things, classes.colors, strict=True
            )
        ]
        content = {"images": self._images, "annotations": self._maps, "categories": categories}
        write_file(path, json.dumps(content) + "\n")


def provide_classes(file: pathlib.Path, classes: "Classes") -> None:
    """Writes the `classes.json` of label maps, or checks that an existing one agrees.

    Args:
      file: path of the file.
      classes: classes of the maps.

    Raises:
      ValueError: if the file exists with other classes; it names the file.
      OSError: if the file cannot be written.
    """
    from segjax.data.class_list import read_classes, write_classes

    if not file.exists():
        write_classes(file, classes)
    elif read_classes(file)[0] != classes:
        raise ValueError(f"{file}: expected the classes of the model; give another --output")


def number_images(files: Sequence[pathlib.Path]) -> dict[pathlib.Path, int]:
    """Numbers images that are not in a list.

    Args:
      files: files of the images.

    Returns:
      Ids by file: the numbers that the files are named by, as in COCO, if all are and differ;
      otherwise 1, 2, 3 … in the order of the files.

    Example:
      >>> list(number_images([pathlib.Path("000000000139.jpg")]).values())
      [139]
    """
    named = [int(file.stem) for file in files if file.stem.isascii() and file.stem.isdecimal()]
    numbers = named if len(set(named)) == len(files) else range(1, len(files) + 1)
    return dict(zip(files, numbers, strict=True))


def find_listed(
    files: Sequence[pathlib.Path], annotations: pathlib.Path
) -> dict[pathlib.Path, tuple[int, "CocoImage"]]:
    """Looks up images in a JSON file in COCO's format.

    Args:
      files: files of the images.
      annotations: path of the JSON file. A file is looked up by its name; of several entries, by
        the `file_name` that its path ends with.

    Returns:
      The id and the image of each file.

    Raises:
      DataError: if the JSON cannot be read, or does not have one image for each file; it names
        both.
    """
    from segjax.data.coco_json import read_image_list
    from segjax.data.errors import DataError

    named: dict[str, list[tuple[int, CocoImage]]] = {}
    folder = pathlib.Path("images")
    for number, image in read_image_list(annotations, folder).items():
        named.setdefault(image.path.name, []).append((number, image))
    found = {}
    for file in files:
        matches = named.get(file.name, [])
        if len(matches) > 1:
            path = file.absolute().as_posix()
            ends = {n: f"/{image.path.relative_to(folder).as_posix()}" for n, image in matches}
            matches = [(n, image) for n, image in matches if path.endswith(ends[n])]
        if len(matches) != 1:
            raise DataError(f"{annotations}: expected one image {file.name}, got {len(matches)}")
        number, image = matches[0]
        found[file] = number, dataclasses.replace(image, path=file)
    return found
