"""Panoptic quality by panopticapi: writes panopticapi_quality.npz beside this file.

Run `SEGJAX_TEST_DATA=FOLDER python panopticapi_quality.py` where panopticapi is installed
(`pip install git+https://github.com/cocodataset/panopticapi`).
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 5
_COUNTS = ("iou", "tp", "fp", "fn")


def draw(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Predictions and targets of twelve images, by the names of `Panoptic`'s fields.

    Targets are coarse blocks, a quarter of them void or crowds; half of the predicted segments
    are theirs but for noise.
    """
    rng = np.random.default_rng(seed)
    images, n = 12, 10
    blocks = rng.integers(-1, n, size=(images, 6, 6))
    segments = np.kron(blocks, np.ones((1, 4, 4), int))
    classes = rng.integers(CLASSES - 1, size=(images, n))
    classes[:, -1] = CLASSES - 1  # the only crowds: panopticapi knows one a class
    crowd = np.zeros((images, n), bool)
    crowd[:, -1] = rng.random(images) < 0.7
    targets = {"segments": segments, "classes": classes, "crowd": crowd}

    noisy = rng.random(segments.shape) < rng.choice([0.1, 0.3], (images, 1, 1))
    others = rng.integers(-1, n, size=segments.shape)
    shifted = np.roll(segments, rng.integers(3), axis=rng.integers(1, 3))
    predicted = np.where(noisy, others, shifted)
    wrong = rng.random(classes.shape) < 0.3
    guesses = np.where(wrong, rng.integers(CLASSES, size=classes.shape), classes)
    predictions = {"segments": predicted, "classes": guesses}
    for record in (predictions, targets):
        record["valid"] = (record["segments"][:, None] == np.arange(n)[:, None, None]).any((-2, -1))
    return predictions, targets


def perturb(targets: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Predictions that fail in every way: segments shifted, merged, dropped, of a wrong class."""
    rng = np.random.default_rng(seed)
    segments, classes = targets["segments"].copy(), targets["classes"].copy()
    for i in range(len(segments)):
        ids = np.flatnonzero(targets["valid"][i])
        shift = tuple(rng.integers(-8, 9, size=2))
        if rng.random() < 0.5:
            segments[i] = np.roll(segments[i], shift, axis=(0, 1))
        first, second, dropped, wrong = rng.choice(ids, size=4)
        segments[i][segments[i] == first] = second
        segments[i][segments[i] == dropped] = -1
        classes[i, wrong] = rng.choice(classes[i, ids])
    n = classes.shape[-1]
    counts = [np.bincount(s[s >= 0], minlength=n) for s in segments]
    return {"segments": segments, "classes": classes, "valid": np.stack(counts) > 0}


def read_coco(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """COCO's panoptic targets at the top left of canvases of one size; which classes are things."""
    content = json.loads((folder / "panoptic.json").read_text())
    categories = {category["id"]: i for i, category in enumerate(content["categories"])}
    annotations = content["annotations"]
    side = max(max(image["height"], image["width"]) for image in content["images"])
    n = max(len(annotation["segments_info"]) for annotation in annotations)
    shape = (len(annotations), n)
    targets = {
        "segments": np.full((len(annotations), side, side), -1, np.int32),
        "classes": np.zeros(shape, np.int32),
        "valid": np.zeros(shape, bool),
        "crowd": np.zeros(shape, bool),
    }
    for i, annotation in enumerate(annotations):
        colors = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"]), int)
        ids = colors @ [1, 256, 256**2]
        for k, segment in enumerate(annotation["segments_info"]):
            targets["segments"][i, : len(ids), : ids.shape[1]][ids == segment["id"]] = k
            targets["classes"][i, k] = categories[segment["category_id"]]
            targets["valid"][i, k] = True
            targets["crowd"][i, k] = segment["iscrowd"]
    is_thing = np.array([category["isthing"] == 1 for category in content["categories"]])
    return targets, is_thing


def evaluate(
    predictions: dict[str, np.ndarray], targets: dict[str, np.ndarray], is_thing: np.ndarray
) -> dict[str, np.ndarray]:
    """panopticapi's counts `[4, c]` and its means `[3, 3]`: PQ, SQ, RQ of all, things, stuff."""
    from panopticapi.evaluation import pq_compute_single_core

    categories = {c: {"id": c, "isthing": int(thing)} for c, thing in enumerate(is_thing)}
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            tuple(
                _write(Path(folder) / f"{name}{i}.png", {k: v[i] for k, v in record.items()})
                for name, record in (("target", targets), ("prediction", predictions))
            )
            for i in range(len(targets["segments"]))
        ]
        peer = pq_compute_single_core(0, pairs, folder, folder, categories)
    by_class = [peer[c] for c in categories]
    means = [peer.pq_average(categories, isthing=kind)[0] for kind in (None, True, False)]
    return {
        "counts": np.array([[getattr(c, name) for c in by_class] for name in _COUNTS]),
        "means": np.array([[mean[name] for name in ("pq", "sq", "rq")] for mean in means]),
    }


def _write(file: Path, record: dict[str, np.ndarray]) -> dict:
    """An image's annotation, with its segments as colours in a file."""
    ids = record["segments"] + 1
    Image.fromarray(np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)).save(file)
    crowd = record.get("crowd", np.zeros_like(record["valid"]))
    segments = [
        {
            "id": int(k) + 1,
            "category_id": int(record["classes"][k]),
            "iscrowd": int(crowd[k]),
            "area": int(np.sum(ids == k + 1)),
        }
        for k in np.flatnonzero(record["valid"])
    ]
    return {"file_name": file.name, "image_id": file.stem, "segments_info": segments}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The seed to draw from, and panopticapi's results; those on COCO where it is at hand."""
    things = np.arange(CLASSES) < 3
    results = {"": evaluate(*draw(seed), things)}
    if folder := os.environ.get("SEGJAX_TEST_DATA"):
        targets, is_thing = read_coco(Path(folder) / "tiny" / "coco_panoptic" / "val")
        results["coco_"] = evaluate(perturb(targets, seed), targets, is_thing)
    arrays = {f"{p}{name}": x for p, result in results.items() for name, x in result.items()}
    return {"seed": np.array(seed), "things": things, **arrays}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
