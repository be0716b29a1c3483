"""Average precision and recall by pycocotools: writes pycocotools_precision.npz beside this file.

Run `SEGJAX_TEST_DATA=FOLDER python pycocotools_precision.py` where pycocotools is installed.
"""

import contextlib
import io
import os
import runpy
from pathlib import Path

import numpy as np

CLASSES = 4  # the last has no objects
COCO_CLASSES = 133
HEIGHT, WIDTH = 120, 160


def draw(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Padded detections and objects of eight images, by the names of `Instances`' fields.

    Many scores and IoUs are equal, and many IoUs lie on a threshold: boxes have whole corners.
    The first three images lack objects, detections, and both.
    """
    rng = np.random.default_rng(seed)
    images, n, m = 8, 130, 12

    def boxes(*shape):
        sides = np.round(np.array([WIDTH, HEIGHT]) * rng.beta(0.8, 0.6, (*shape, 2))).clip(1)
        start = np.floor(rng.random((*shape, 2)) * (np.array([WIDTH, HEIGHT]) - sides + 1))
        return np.concatenate([start, start + sides], -1)

    targets = {
        "boxes": boxes(images, m),
        "classes": rng.integers(CLASSES - 1, size=(images, m)),
        "valid": rng.random((images, m)) < 0.8,
        "crowd": rng.random((images, m)) < 0.15,
    }
    near = rng.integers(m, size=(images, n))
    copies = np.take_along_axis(targets["boxes"], near[..., None], 1)
    moved = np.clip(copies + rng.integers(-4, 5, (images, n, 4)), 0, [WIDTH, HEIGHT] * 2)
    moved = np.where((moved[..., 2:] > moved[..., :2]).all(-1, keepdims=True), moved, copies)
    classes = np.take_along_axis(targets["classes"], near, 1)
    good = rng.random((images, n)) < 0.5
    predictions = {
        "boxes": np.where(good[..., None], moved, boxes(images, n)),
        "classes": np.where(rng.random((images, n)) < 0.2, rng.integers(CLASSES), classes),
        "valid": rng.random((images, n)) < 0.9,
        "scores": np.round((rng.random((images, n)) + good) / 2, 1),
    }
    predictions["classes"][3] = 0  # more than a hundred
    targets["valid"][[0, 2]] = predictions["valid"][[1, 2]] = False
    for record in (predictions, targets):
        record["masks"] = _ellipses(record["boxes"])
    size = targets["masks"].sum((-2, -1), dtype=float)
    targets["areas"] = np.where(rng.random(size.shape) < 0.3, rng.choice([32**2, 96**2]), size)
    return predictions, targets


def _ellipses(boxes: np.ndarray) -> np.ndarray:
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT)[:, None] + 0.5
    centre, radius = (boxes[..., 2:] + boxes[..., :2]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    centre, radius = centre[..., None, None], radius[..., None, None]
    across = (x - centre[..., 0, :, :]) / radius[..., 0, :, :]
    down = (y - centre[..., 1, :, :]) / radius[..., 1, :, :]
    return across**2 + down**2 <= 1


def read_coco(folder: Path) -> dict[str, np.ndarray]:
    """The things of COCO's panoptic annotations, by the names of `Instances`' fields."""
    script = Path(__file__).with_name("panopticapi_quality.py")
    panoptic, is_thing = runpy.run_path(str(script))["read_coco"](folder)
    n = panoptic["valid"].shape[1]
    masks = panoptic["segments"][:, None] == np.arange(n)[:, None, None]
    valid = panoptic["valid"] & is_thing[panoptic["classes"]]
    # Things first, and no more rows than they need.
    order = np.argsort(~valid, axis=1, kind="stable")[:, : valid.sum(1).max()]
    order = (np.arange(len(order))[:, None], order)
    targets = {name: panoptic[name][order] for name in ("classes", "crowd")}
    targets |= {"valid": valid[order], "masks": masks[order]}
    targets["areas"] = targets["masks"].sum((-2, -1), dtype=float)
    return targets | {"boxes": np.zeros((*targets["valid"].shape, 4))}


def perturb(targets: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Two detections of each object: shifted, a few of another class, some not valid."""
    rng = np.random.default_rng(seed)
    names = ("classes", "valid", "masks", "boxes")
    found = {name: np.concatenate([targets[name]] * 2, axis=1) for name in names}
    for mask in found["masks"].reshape(-1, *found["masks"].shape[2:]):
        mask[:] = np.roll(mask, tuple(rng.integers(-3, 4, size=2)), axis=(0, 1))
    wrong = rng.random(found["valid"].shape) < 0.1
    found["classes"] = np.where(wrong, np.roll(found["classes"], 1, axis=1), found["classes"])
    found["valid"] &= rng.random(wrong.shape) < 0.7
    found["valid"] &= found["masks"].any((-2, -1))
    return found | {"scores": np.round(rng.random(wrong.shape), 2)}


def evaluate(
    predictions: dict[str, np.ndarray], targets: dict[str, np.ndarray], kind: str, num_classes: int
) -> dict[str, np.ndarray]:
    """pycocotools' twelve figures, and the precision of each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, _, height, width = targets["masks"].shape
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i, "height": height, "width": width} for i in range(images)],
            "categories": [{"id": c} for c in range(num_classes)],
            "annotations": [
                {"id": k + 1, "iscrowd": int(targets["crowd"][at])}
                | {"area": float(targets["areas"][at])}
                | _annotation(targets, at)
                for k, at in enumerate(zip(*np.nonzero(targets["valid"]), strict=True))
            ],
        }
        truth.createIndex()
        keys = {"box": ("bbox", "segmentation"), "mask": ("segmentation", "bbox")}[kind]
        found = []
        for at in zip(*np.nonzero(predictions["valid"]), strict=True):
            found.append(_annotation(predictions, at) | {"score": float(predictions["scores"][at])})
            del found[-1][keys[1]]
        peer = COCOeval(truth, truth.loadRes(found), {"box": "bbox", "mask": "segm"}[kind])
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
    precision = peer.eval["precision"][..., 0, 2]  # thresholds, recalls, classes
    return {"figures": peer.stats, "class_ap": precision.mean((0, 1))}


def _annotation(record: dict[str, np.ndarray], at: tuple[int, int]) -> dict:
    from pycocotools import mask

    x0, y0, x1, y1 = record["boxes"][at].tolist()
    return {
        "image_id": int(at[0]),
        "category_id": int(record["classes"][at]),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": mask.encode(np.asfortranarray(record["masks"][at], np.uint8)),
    }


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The seed to draw from and pycocotools' results; those on COCO's masks where at hand."""
    results = {kind: evaluate(*draw(seed), kind, CLASSES) for kind in ("box", "mask")}
    if folder := os.environ.get("SEGJAX_TEST_DATA"):
        targets = read_coco(Path(folder) / "tiny" / "coco_panoptic" / "val")
        results["coco"] = evaluate(perturb(targets, seed), targets, "mask", COCO_CLASSES)
    arrays = {f"{p}_{name}": x for p, result in results.items() for name, x in result.items()}
    return {"seed": np.array(seed), **arrays}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
