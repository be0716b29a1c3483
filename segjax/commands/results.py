"""What `predict` writes of a picture, for each kind of prediction."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from segjax import viz
from segjax.data import Classes, encode_rle
from segjax.data.canvas import visible_instances, visible_segments
from segjax.typing import Instances, Panoptic


def crop(prediction: Any, shape: tuple[int, int]) -> Any:
    """What of a prediction for a canvas lies on the picture at its top left.

    Args:
      prediction: probabilities `[h, w, classes]`, objects or segments, as NumPy arrays.
      shape: (height, width) of the picture.

    Returns:
      The same for the picture; objects and segments without a pixel there are not valid.
    """
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


def write_semantic(
    path: pathlib.Path, image: np.ndarray, probs: np.ndarray, classes: Classes
) -> np.ndarray:
    """Writes the class ids to PATH.png.

    Args:
      path: of the results, without an ending.
      image: uint8 `[h, w, c]`.
      probs: `[h, w, classes]`.
      classes: names and colours.

    Returns:
      The picture with the prediction on it, RGB uint8.
    """
    labels = probs.argmax(-1)
    kind = np.uint8 if len(classes) <= 256 else np.uint16
    viz.save_image(f"{path}.png", labels.astype(kind))
    return viz.draw_labels(image, labels, classes)


def write_instances(
    path: pathlib.Path,
    image: np.ndarray,
    instances: Instances,
    classes: Classes,
    score_threshold: float,
) -> np.ndarray:
    """Writes the objects to PATH.json, the surest first.

    Args:
      path: of the results, without an ending.
      image: uint8 `[h, w, c]`.
      instances: objects of the picture.
      classes: names and colours.
      score_threshold: the least score of what is written and drawn.

    Returns:
      The picture with the objects on it, RGB uint8.
    """
    assert instances.scores is not None
    objects = []
    for k in np.argsort(-instances.scores, kind="stable"):
        if not instances.valid[k] or instances.scores[k] < score_threshold:
            continue
        left, top, right, bottom = instances.boxes[k].tolist()
        entry: dict[str, Any] = {
            "category_id": int(instances.classes[k]),
            "category": classes.names[instances.classes[k]],
            "score": float(instances.scores[k]),
            "bbox": [left, top, right - left, bottom - top],
        }
        if instances.masks is not None:
            mask = np.asarray(instances.masks[k])
            entry["segmentation"] = {"size": list(mask.shape), "counts": encode_rle(mask)}
        objects.append(entry)
    pathlib.Path(f"{path}.json").write_text(json.dumps(objects, indent=1) + "\n")
    return viz.draw_instances(image, instances, classes, score_threshold=score_threshold)


def write_panoptic(
    path: pathlib.Path, image: np.ndarray, panoptic: Panoptic, classes: Classes
) -> np.ndarray:
    """Writes the segments in COCO's form: ids to PATH.png, what they are to PATH.json.

    Args:
      path: of the results, without an ending.
      image: uint8 `[h, w, c]`.
      panoptic: segments of the picture.
      classes: names and colours, and which are things.

    Returns:
      The picture with the segments on it, RGB uint8.
    """
    valid = np.append(panoptic.valid, False)  # which -1 picks
    ids = np.where(valid[panoptic.segments], panoptic.segments + 1, 0)
    viz.save_image(f"{path}.png", np.stack([ids >> s & 255 for s in (0, 8, 16)], -1).astype("u1"))
    entries = []
    for k in np.flatnonzero(panoptic.valid):
        c = int(panoptic.classes[k])
        entry = {
            "id": int(k) + 1,
            "category_id": c,
            "category": classes.names[c],
            "isthing": bool(classes.things and classes.things[c]),
            "area": int(np.sum(panoptic.segments == k)),
        }
        if panoptic.scores is not None:
            entry["score"] = float(panoptic.scores[k])
        entries.append(entry)
    pathlib.Path(f"{path}.json").write_text(json.dumps(entries, indent=1) + "\n")
    return viz.draw_panoptic(image, panoptic, classes)
