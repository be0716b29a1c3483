"""What a `Predictor` says of a picture: to look at, to go on with, and to save."""

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

if TYPE_CHECKING:  # they stand above `inference`, so they are imported where they are used
    from segjax.data import Classes


@dataclasses.dataclass(frozen=True)
class SemanticPrediction:
    """A class for each pixel of a picture.

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
        """The classes, int32 `[h, w]`: places in `classes.names`, and in `classes.ids`."""
        return self.probs.argmax(-1).astype(np.int32)

    def overlay(self) -> np.ndarray:
        """The picture with the classes drawn on it, RGB uint8 `[h, w, 3]`."""
        from segjax import viz

        return viz.draw_labels(self.image, self.labels, self.classes)

    def save(self, path: str | os.PathLike, *, probabilities: bool = False) -> None:
        """Writes PATH.png, whose values are `classes.ids`, and PATH_overlay.png.

        Args:
          path: of the files, without an ending; a missing folder is made.
          probabilities: also write PATH.npz with `probs`, float16 `[h, w, classes]`.

        Raises:
          ValueError: a class has an id that a PNG does not hold.
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
      class_id: of its class: a place in `Classes.names`, and in `Classes.ids`.
      name: of its class.
      score: how sure the model is, in 0..1.
      box: (left, top, right, bottom) in pixels.
      mask: `[h, w]`; None of a model that predicts boxes alone.
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
      instances: objects `[n]` as the model gives them, those of low scores among them.
      classes: names and colours of the classes.
      score_threshold: the least score of an object that counts.
    """

    image: np.ndarray
    instances: Instances
    classes: "Classes"
    score_threshold: float

    @functools.cached_property
    def objects(self) -> list[FoundObject]:
        """The objects that count, the surest first."""
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
        """The objects that count in COCO's format, as they are saved.

        Each has `category_id` (of `classes.ids`), `category`, `score`, `bbox` (x, y, width, height)
        and `segmentation` (COCO's compressed runs).
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
          path: of the files, without an ending; a missing folder is made.
        """
        _save_images(path, None, self.overlay())
        _save_entries(path, self.annotations())


@dataclasses.dataclass(frozen=True)
class FoundSegment:
    """A segment of a picture.

    Attributes:
      number: its value in `PanopticPrediction.map`.
      class_id: of its class: a place in `Classes.names`, and in `Classes.ids`.
      name: of its class.
      is_thing: whether objects of its class are counted one by one.
      score: how sure the model is, in 0..1; None where it does not say.
      area: in pixels.
    """

    number: int
    class_id: int
    name: str
    is_thing: bool
    score: float | None
    area: int


@dataclasses.dataclass(frozen=True)
class PanopticPrediction:
    """The segments of a picture, each pixel in one at most.

    Attributes:
      image: the picture, `[h, w, c]`.
      panoptic: segments as the model gives them.
      classes: names and colours of the classes, and which are things.
    """

    image: np.ndarray
    panoptic: Panoptic
    classes: "Classes"

    @functools.cached_property
    def map(self) -> np.ndarray:
        """The number of each pixel's segment, int32 `[h, w]`; 0 is void."""
        valid = np.append(self.panoptic.valid, False)  # which -1 picks
        return np.where(valid[self.panoptic.segments], self.panoptic.segments + 1, 0)

    @functools.cached_property
    def segments(self) -> list[FoundSegment]:
        """What there is in `map`, by number."""
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
        """The segments in COCO's format, its `segments_info`, as they are saved.

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
          path: of the files, without an ending; a missing folder is made.
        """
        colors = np.stack([self.map >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
        _save_images(path, colors, self.overlay())
        _save_entries(path, self.annotations())


Prediction = SemanticPrediction | InstancePrediction | PanopticPrediction


def crop(prediction: Any, shape: tuple[int, int]) -> Any:
    """What of a task's prediction for a canvas lies on the picture at its top left.

    Args:
      prediction: probabilities `[h, w, classes]`, objects or segments, as NumPy arrays.
      shape: (height, width) of the picture.

    Returns:
      The same for the picture; objects and segments without a pixel there are not valid.
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
