"""What Hugging Face makes of queries: writes transformers_fusion.npz beside this file.

Run `python transformers_fusion.py` where torch and transformers are installed.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

THINGS = np.array([True, True, False, False])
SHAPE = 20, 26  # of the pictures
MASKS = 10, 13  # of the masks
THRESHOLD = 0.5


def draw(seed: int) -> dict[str, np.ndarray]:
    """Logits of ten queries for six pictures, in the last of which all are "no object".

    Masks are discs that overlap. Things come before stuff, and stuff by class: in any other order
    transformers numbers things as if they were pieces of stuff.
    """
    rng = np.random.default_rng(seed)
    pictures, queries = 6, 10
    classes = np.sort(rng.integers(len(THINGS) + 1, size=(pictures, queries)))
    classes[-1] = len(THINGS)
    class_logits = rng.normal(size=(*classes.shape, len(THINGS) + 1))
    class_logits += 4 * np.eye(len(THINGS) + 1)[classes]

    y, x, radius = rng.uniform(0, 1, (3, pictures, queries, 1, 1)) * np.array([*MASKS, 5]).reshape(
        3, 1, 1, 1, 1
    )
    rows, columns = np.mgrid[: MASKS[0], : MASKS[1]]
    mask_logits = 2 * (radius - np.hypot(rows - y, columns - x))
    mask_logits += rng.normal(size=mask_logits.shape)
    boxes = rng.uniform(0.2, 0.6, (pictures, queries, 4))
    return {"class_logits": class_logits, "mask_logits": mask_logits, "boxes": boxes}


def _segments(results: list[dict]) -> dict[str, np.ndarray]:
    """Maps of segments from 0 with void -1, and of each (picture, segment, class, score)."""
    maps, table = [], []
    for i, result in enumerate(results):
        info = result["segments_info"]
        maps.append(np.maximum(result["segmentation"].numpy().astype(int) - 1, -1))
        first = {row["id"]: row for row in reversed(info)}
        table += [
            [i, row["id"] - 1, row["label_id"], row["score"]] for _, row in sorted(first.items())
        ]
    return {"segments": np.stack(maps).astype(np.int8), "table": np.array(table)}


def _instances(results: list[dict]) -> dict[str, np.ndarray]:
    """Each object's (picture, class, score) and mask, by picture and falling score."""
    table, masks = [], []
    for i, result in enumerate(results):
        for info, mask in zip(result["segments_info"], result["segmentation"], strict=False):
            table.append([i, info["label_id"], info["score"]])
            masks.append(mask.numpy() > 0)
    order = sorted(range(len(table)), key=lambda k: (table[k][0], -table[k][2]))
    return {"table": np.array(table)[order], "masks": np.stack(masks)[order]}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """The seed to draw from, and under `<what> …` what comes of it, at the size `SHAPE`."""
    import torch
    from transformers import DetrImageProcessor, Mask2FormerImageProcessor, MaskFormerImageProcessor

    tensors = {name: torch.tensor(array) for name, array in draw(seed).items()}
    outputs = SimpleNamespace(
        class_queries_logits=tensors["class_logits"],
        masks_queries_logits=tensors["mask_logits"],
        logits=tensors["class_logits"],
        pred_masks=tensors["mask_logits"],
        pred_boxes=tensors["boxes"],
    )
    sizes = [SHAPE] * len(tensors["boxes"])
    fused = {"label_ids_to_fuse": set(np.flatnonzero(~THINGS).tolist()), "target_sizes": sizes}
    maskformer = MaskFormerImageProcessor()
    semantic = maskformer.post_process_semantic_segmentation(
        outputs, sizes, return_segmentation_scores=True
    )
    detr = DetrImageProcessor()
    detected = detr.post_process_object_detection(outputs, THRESHOLD, sizes)
    results = {
        "maskformer": _segments(maskformer.post_process_panoptic_segmentation(outputs, **fused)),
        "mask2former": _segments(
            Mask2FormerImageProcessor().post_process_panoptic_segmentation(outputs, **fused)
        ),
        "detr": _segments(
            detr.post_process_instance_segmentation(outputs, THRESHOLD, target_sizes=sizes)
        ),
        "instances": _instances(
            maskformer.post_process_instance_segmentation(
                outputs, target_sizes=sizes, return_binary_maps=True
            )
        ),
        "semantic": {"scores": semantic[0].segmentation_scores.numpy()},
        "boxes": {
            name: torch.cat([result[name] for result in detected]).numpy()
            for name in ("boxes", "labels", "scores")
        },
    }
    arrays = {f"{kind} {name}": x for kind, made in results.items() for name, x in made.items()}
    return {"seed": np.array(seed), **arrays}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
