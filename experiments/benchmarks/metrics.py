"""Time of the metrics beside NumPy and pycocotools.

    pip install -e ".[parity]" && python experiments/benchmarks/metrics.py

Average precision: from masks of eight images in memory to the outcome of every detection; for
pycocotools that includes their run lengths. Takes about a minute on two cores.
"""

import contextlib
import io
from collections.abc import Callable

import numpy as np
from harness import main

CONFUSION = "confusion matrix, 150 classes, 8×512²"
INTERSECTIONS = "panoptic quality, 60 segments, 512×1024"
BOXES = "COCO AP, 8 images, 100 boxes for 20 objects"
MASKS = "COCO AP, 8 images, 100 masks for 20 objects, 480×640"

TABLE = {
    CONFUSION: ["segjax", "numpy.bincount"],
    INTERSECTIONS: ["segjax", "numpy.unique, intersections alone"],
    BOXES: ["segjax", "pycocotools"],
    MASKS: ["segjax", "pycocotools"],
}


def make_run(task: str, form: str) -> Callable[[], float]:
    rng = np.random.default_rng(0)
    if task == CONFUSION:
        return confusion(form, *rng.integers(150, size=(2, 8, 512, 512), dtype=np.int32))
    if task == INTERSECTIONS:
        coarse = rng.integers(60, size=(8, 16))
        segments = np.kron(coarse, np.ones((64, 64), np.int32)).astype(np.int32)
        return intersections(form, np.roll(segments, (5, 9), axis=(0, 1)), segments)
    return precision(form, "box" if task == BOXES else "mask", rng)


def confusion(form: str, predictions: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Answers with the number of pixels on the diagonal."""
    if form != "segjax":

        def count():
            cells = np.bincount((labels * 150 + predictions).ravel(), minlength=150**2)
            return np.trace(cells.reshape(150, 150))

        return count

    import jax

    from segjax.metrics import confusion_matrix

    ours = jax.jit(confusion_matrix, static_argnums=2)
    arguments = jax.device_put((predictions, labels))
    return lambda: np.trace(ours(*arguments, 150))


def intersections(form: str, predicted: np.ndarray, labelled: np.ndarray) -> Callable[[], float]:
    """Answers with the number of pairs of segments that match; NumPy's needs no more than that."""
    if form != "segjax":

        def count():
            pairs, areas = np.unique(labelled * 60 + predicted, return_counts=True)
            table = np.zeros((60, 60), int)
            table.flat[pairs] = areas
            union = table.sum(0) + table.sum(1)[:, None] - table
            return np.sum(2 * table > union)

        return count

    import jax

    from segjax.metrics import panoptic_quality
    from segjax.typing import Panoptic

    ours = jax.jit(panoptic_quality, static_argnames="num_classes")
    table = np.zeros(60, np.int32), np.ones(60, bool)
    arguments = jax.device_put((Panoptic(predicted, *table), Panoptic(labelled, *table)))
    return lambda: ours(*arguments, num_classes=1).true_positives.sum()


def precision(form: str, kind: str, rng: np.random.Generator) -> Callable[[], float]:
    """Answers with the average precision."""
    size = np.array([640, 480])
    sides = np.round(size * rng.uniform(0.05, 0.4, (8, 20, 2)))
    start = np.floor(rng.random((8, 20, 2)) * (size - sides))
    boxes = np.concatenate([start, start + sides], -1)
    near = np.tile(boxes, (1, 5, 1))
    found = np.clip(near + rng.integers(-9, 10, near.shape), 0, np.tile(size, 2))
    labels = rng.integers(5, size=(8, 20))
    targets = {"boxes": boxes, "classes": labels, "valid": np.ones((8, 20), bool)}
    predictions = {
        "boxes": found,
        "classes": np.tile(labels, 5),
        "valid": np.ones((8, 100), bool),
        "scores": rng.permuted(np.tile(np.arange(100) / 100, (8, 1)), axis=1),
    }
    x, y = np.arange(640) + 0.5, np.arange(480)[:, None] + 0.5
    if kind == "mask":
        for record in (predictions, targets):
            x0, y0, x1, y1 = np.moveaxis(record["boxes"], -1, 0)[..., None, None]
            record["masks"] = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    areas = np.prod(sides, axis=-1)
    return (our_precision if form == "segjax" else peer_precision)(
        kind, predictions, targets | {"areas": areas}
    )


def our_precision(kind: str, predictions: dict, targets: dict) -> Callable[[], float]:
    import jax.numpy as jnp

    from segjax.metrics import average_precision
    from segjax.typing import Instances

    arguments = [
        Instances(**{k: jnp.asarray(v, v.dtype if v.dtype == bool else None) for k, v in r.items()})
        for r in (predictions, targets)
    ]
    return lambda: average_precision(*arguments, num_classes=5, kind=kind).compute().ap


def peer_precision(kind: str, predictions: dict, targets: dict) -> Callable[[], float]:
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()

    def records(arrays: dict) -> list[dict]:
        found = []
        for i, k in np.ndindex(arrays["valid"].shape):
            x0, y0, x1, y1 = arrays["boxes"][i, k].tolist()
            record = {"id": len(found) + 1, "image_id": i, "iscrowd": 0}
            record |= {"category_id": int(arrays["classes"][i, k])}
            if kind == "mask":
                pixels = np.asfortranarray(arrays["masks"][i, k].view(np.uint8))
                record |= {"segmentation": mask.encode(pixels)}
            else:
                record |= {"bbox": [x0, y0, x1 - x0, y1 - y0]}
            if "scores" in arrays:
                record |= {"score": float(arrays["scores"][i, k])}
            found.append(record)
        return found

    def evaluate():
        with contextlib.redirect_stdout(io.StringIO()):
            truth.dataset = {
                "images": [{"id": i, "height": 480, "width": 640} for i in range(8)],
                "categories": [{"id": c} for c in range(5)],
                "annotations": [
                    record | {"area": area}
                    for record, area in zip(records(targets), targets["areas"].flat, strict=True)
                ],
            }
            truth.createIndex()
            found = truth.loadRes(records(predictions))
            peer = COCOeval(truth, found, {"box": "bbox", "mask": "segm"}[kind])
            peer.evaluate()
            peer.accumulate()
            peer.summarize()
        return peer.stats[0]

    return evaluate


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
