"""Predictions of a `Predictor`, which can be drawn and saved."""

import dataclasses
import functools
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segjax.files import write_file
from segjax.typing import Instances, Panoptic

if TYPE_CHECKING:  # a package above `inference`, which is imported where it is used
    from segjax.data import Classes


@dataclasses.dataclass(frozen=True)
class SemanticPrediction:
    """Semantic segmentation of a picture.

    Attributes:
      image: the picture, `[h, w, c]`.
      probs: the class probabilities `[h, w, classes]`.
      classes: names and colours of the classes.
    """

    image: np.ndarray
    probs: np.ndarray
    classes: "Classes"

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The most probable classes, int32 `[h, w]`: indices into `classes.names`."""
        return self.probs.argmax(-1).astype(np.int32)

    def overlay(self) -> np.ndarray:
        """The picture with the classes drawn on it, RGB uint8 `[h, w, 3]`."""
        from segjax import viz

        return viz.draw_labels(self.image, self.labels, self.classes)

    def save(self, path: str | os.PathLike, *, probabilities: bool = False) -> None:
        """Writes PATH.png, whose values are ids from `classes.ids`, and PATH_overlay.png.

        Args:
          path: path of the files without a suffix; a missing folder is made.
          probabilities: whether to write PATH.npz with `probs`, float16 `[h, w, classes]`.

        Raises:
          ValueError: if the id of a class is outside 0..65535.
          OSError: if a file cannot be written.
        """
        ids = np.array(self.classes.ids)
        if ids.min() < 0 or ids.max() > 65535:
            raise ValueError(f"classes: expected ids 0..65535 to write a PNG, got {ids.max()}")
        kind = np.uint8 if ids.max() <= 255 else np.uint16
        _save_images(path, ids[self.labels].astype(kind), self.overlay())
        if probabilities:
            content = io.BytesIO()
            np.savez_compressed(content, probs=self.probs.astype(np.float16))
            write_file(f"{path}.npz", content.getvalue())


@dataclasses.dataclass(frozen=True)
class FoundObject:
    """An object of a picture.

    Attributes:
      class_id: its class, as an index into `Classes.names` and `Classes.ids`.
      name: name of its class.
      score: confidence of the model, in 0..1.
      box: (left, top, right, bottom) in pixels.
      mask: `[h, w]`, boolean; None if the model predicts boxes alone.
    """

    class_id: int
    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class InstancePrediction:
    """The objects of a picture.

    Attributes:
      image: the picture, `[h, w, c]`.
      instances: the model's objects `[n]`, including those with low scores.
      classes: names and colours of the classes.
      score_threshold: least score of the objects that are kept.
    """

    image: np.ndarray
    instances: Instances
    classes: "Classes"
    score_threshold: float

    @functools.cached_property
    def objects(self) -> list[FoundObject]:
        """The valid objects with at least `score_threshold`, by falling score."""
        found, scores = self.instances, self.instances.scores
        assert scores is not None
        return [
            FoundObject(
                class_id=int(found.classes[k]),
                name=self.classes.names[found.classes[k]],
                score=float(scores[k]),
                box=tuple(found.boxes[k].tolist()),
                mask=None if found.masks is None else np.asarray(found.masks[k]),
            )
            for k in np.argsort(-scores, kind="stable")
            if found.valid[k] and scores[k] >= self.score_threshold
        ]

    def overlay(self) -> np.ndarray:
        """The picture with the objects drawn on it, RGB uint8 `[h, w, 3]`."""
        from segjax import viz

        return viz.draw_instances(
            self.image, self.instances, self.classes, score_threshold=self.score_threshold
        )

    def annotations(self) -> list[dict[str, Any]]:
        """The objects in COCO's format, as written by `save`.

        Each has `category_id` (from `classes.ids`), `category`, `score`, `bbox` (x, y, width,
        height) and `segmentation` (COCO's compressed run-length encoding).
        """
        from segjax.data import encode_rle

        entries = []
        for found in self.objects:
            left, top, right, bottom = found.box
            entry: dict[str, Any] = {
                "category_id": self.classes.ids[found.class_id],
                "category": found.name,
                "score": found.score,
                "bbox": [left, top, right - left, bottom - top],
            }
            if found.mask is not None:
                shape = list(found.mask.shape)
                entry["segmentation"] = {"size": shape, "counts": encode_rle(found.mask)}
            entries.append(entry)
        return entries

    def save(self, path: str | os.PathLike) -> None:
        """Writes PATH.json, a list of the `annotations()`, and PATH_overlay.png.

        Args:
          path: path of the files without a suffix; a missing folder is made.
        """
        _save_images(path, None, self.overlay())
        _save_entries(path, self.annotations())


@dataclasses.dataclass(frozen=True)
class FoundSegment:
    """A segment of a picture.

    Attributes:
      number: its value in `PanopticPrediction.map`.
      class_id: its class, as an index into `Classes.names` and `Classes.ids`.
      name: name of its class.
      is_thing: whether its class is a thing, whose objects are counted one by one.
      score: confidence of the model, in 0..1; None if the model gives none.
      area: number of pixels.
    """

    number: int
    class_id: int
    name: str
    is_thing: bool
    score: float | None
    area: int


@dataclasses.dataclass(frozen=True)
class PanopticPrediction:
    """Panoptic segmentation of a picture: each pixel belongs to one segment at most.

    Attributes:
      image: the picture, `[h, w, c]`.
      panoptic: the model's segments.
      classes: names and colours of the classes, and which are things.
    """

    image: np.ndarray
    panoptic: Panoptic
    classes: "Classes"

    @functools.cached_property
    def map(self) -> np.ndarray:
        """The number of each pixel's segment, int32 `[h, w]`; 0 is void."""
        valid = np.append(self.panoptic.valid, False)  # for void, -1
        return np.where(valid[self.panoptic.segments], self.panoptic.segments + 1, 0)

    @functools.cached_property
    def segments(self) -> list[FoundSegment]:
        """The segments in `map`, by number."""
        found, things = self.panoptic, self.classes.things
        areas = np.bincount(np.ravel(found.segments) + 1, minlength=len(found.valid) + 1)[1:]
        return [
            FoundSegment(
                number=int(k) + 1,
                class_id=int(found.classes[k]),
                name=self.classes.names[found.classes[k]],
                is_thing=bool(things and things[found.classes[k]]),
                score=None if found.scores is None else float(found.scores[k]),
                area=int(areas[k]),
            )
            for k in np.flatnonzero(found.valid)
        ]

    def overlay(self) -> np.ndarray:
        """The picture with the segments drawn on it, RGB uint8 `[h, w, 3]`."""
        from segjax import viz

        return viz.draw_panoptic(self.image, self.panoptic, self.classes)

    def annotations(self) -> list[dict[str, Any]]:
        """The segments as `segments_info` in COCO's format, as written by `save`.

        Each has `id` (its value in `map`), `category_id` (from `classes.ids`), `category`,
        `isthing`, `iscrowd` (always 0), `area` in pixels, and `score` where the model gives one.
        """
        entries = []
        for found in self.segments:
            entry = {
                "id": found.number,
                "category_id": self.classes.ids[found.class_id],
                "category": found.name,
                "isthing": found.is_thing,
                "iscrowd": 0,
                "area": found.area,
            }
            entries.append(entry if found.score is None else entry | {"score": found.score})
        return entries

    def save(self, path: str | os.PathLike) -> None:
        """Writes the segments in COCO's format, PATH.png and PATH.json, and PATH_overlay.png.

        The colours of the first are the segments' numbers (red + 256 green + 65536 blue; 0 is
        void); the second is a list of the `annotations()`.

        Args:
          path: path of the files without a suffix; a missing folder is made.
        """
        colors = np.stack([self.map >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
        _save_images(path, colors, self.overlay())
        _save_entries(path, self.annotations())


Prediction = SemanticPrediction | InstancePrediction | PanopticPrediction


def crop(prediction: Any, shape: tuple[int, int]) -> Any:
    """Crops a prediction for a canvas to the picture at its top left.

    Args:
      prediction: probabilities `[h, w, classes]`, objects or segments, as NumPy arrays.
      shape: (height, width) of the picture.

    Returns:
      The prediction for the picture; objects and segments without a pixel there are not valid.
    """
    from segjax.data.canvas import visible_instances, visible_segments

    height, width = shape
    match prediction:
        case Instances():
            if prediction.masks is not None:
                masks = prediction.masks[:, :height, :width]
                prediction = dataclasses.replace(prediction, masks=masks)
            return visible_instances(prediction, shape)
        case Panoptic():
            segments = prediction.segments[:height, :width]
            return visible_segments(dataclasses.replace(prediction, segments=segments))
    return prediction[:height, :width]


def _save_images(path: str | os.PathLike, values: np.ndarray | None, overlay: np.ndarray) -> None:
    from segjax import viz

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if values is not None:
        viz.save_image(f"{path}.png", values)
    viz.save_image(f"{path}_overlay.png", overlay)


def _save_entries(path: str | os.PathLike, entries: list[dict[str, Any]]) -> None:
    write_file(f"{path}.json", json.dumps(entries, indent=1) + "\n")
