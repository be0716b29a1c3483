"""Losses of set prediction by transformers: writes hf_set_losses.npz beside this file.

Run `python hf_set_losses.py` where torch, transformers and SciPy are installed.
"""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

CLASSES = 3
OBJECTS = (3, 0, 1)  # of each image; the rest is padding
POINTS = 24
# The term's name of ours, by that of the peer.
TERMS = {
    "detr": {
        "loss_ce": "cross_entropy",
        "loss_bbox": "l1",
        "loss_giou": "giou",
        "loss_mask": "focal",
        "loss_dice": "dice",
    },
    "maskformer": {
        "loss_cross_entropy": "cross_entropy",
        "loss_mask": "focal",
        "loss_dice": "dice",
    },
    "mask2former": {
        "loss_cross_entropy": "cross_entropy",
        "loss_mask": "mask_cross_entropy",
        "loss_dice": "dice",
    },
}
WEIGHTS = {
    "detr": {"cross_entropy": 1, "l1": 5, "giou": 2, "focal": 1, "dice": 1},
    "maskformer": {"cross_entropy": 1, "focal": 20, "dice": 1},
    "mask2former": {"cross_entropy": 2, "mask_cross_entropy": 5, "dice": 5},
}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy; each model's weighted terms, and the gradients of their sum.

    The entries `points_<number>` are the random points, for every draw of that many.
    """
    rng = np.random.default_rng(seed)
    images, queries, objects = len(OBJECTS), 5, max(OBJECTS)
    arrays = {
        "class_logits": rng.normal(scale=2, size=(images, queries, CLASSES + 1)),
        "boxes": rng.uniform(0.1, 0.9, (images, queries, 4)),
        "mask_logits": rng.normal(scale=3, size=(images, queries, 6, 8)),
        "true_boxes": rng.uniform(0.1, 0.9, (images, objects, 4)),
        "classes": rng.integers(CLASSES, size=(images, objects)),
        "masks": rng.random((images, objects, 12, 16)) < 0.4,
    }
    for count in (POINTS, 3 * POINTS, POINTS - int(0.75 * POINTS)):
        arrays[f"points_{count}"] = rng.random((count, 2))
    for model, losses in {
        "detr": _detr(arrays),
        "maskformer": _maskformer(arrays),
        "mask2former": _mask2former(arrays),
    }.items():
        arrays |= {f"{model}_{name}": value for name, value in losses.items()}
    return arrays


def _inputs(arrays):
    import torch

    names = ("class_logits", "boxes", "mask_logits")
    return {name: torch.tensor(arrays[name], requires_grad=True) for name in names}


def _targets(arrays):
    """One an image, without padding."""
    import torch

    return [
        {
            "class_labels": torch.tensor(arrays["classes"][i, :n]),
            "boxes": torch.tensor(arrays["true_boxes"][i, :n]),
            "masks": torch.tensor(arrays["masks"][i, :n].astype(float)),
        }
        for i, n in enumerate(OBJECTS)
    ]


def _results(model, losses, inputs):
    names = TERMS[model]
    terms = {names[k]: WEIGHTS[model][names[k]] * v for k, v in losses.items() if k in names}
    sum(terms.values()).backward()
    gradients = {f"{k}_gradient": x.grad for k, x in inputs.items() if x.grad is not None}
    return {name: x.detach().numpy() for name, x in {**terms, **gradients}.items()}


def _double(criterion):
    """The criterion in float64; its weight of "no object" is float32 to begin with."""
    criterion = criterion.double()
    criterion.empty_weight[-1] = 0.1
    return criterion


def _detr(arrays):
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    inputs = _inputs(arrays)
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    criterion = _double(ImageLoss(matcher, CLASSES, 0.1, ["labels", "boxes", "masks"]))
    outputs = dict(zip(("logits", "pred_boxes", "pred_masks"), inputs.values(), strict=True))
    return _results("detr", criterion(outputs, _targets(arrays)), inputs)


def _maskformer(arrays):
    from transformers.models.maskformer import modeling_maskformer as maskformer

    inputs, targets = _inputs(arrays), _targets(arrays)
    matcher = maskformer.MaskFormerHungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
    criterion = _double(maskformer.MaskFormerLoss(CLASSES, matcher, {}, 0.1))
    masks, classes = ([target[name] for target in targets] for name in ("masks", "class_labels"))
    losses = criterion(inputs["mask_logits"], inputs["class_logits"], masks, classes)
    return _results("maskformer", losses, inputs)


def _mask2former(arrays):
    import torch
    from transformers.models.mask2former import modeling_mask2former as mask2former

    config = SimpleNamespace(
        num_labels=CLASSES,
        no_object_weight=0.1,
        train_num_points=POINTS,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
    )

    def rand(masks, count, _, device):
        return torch.tensor(arrays[f"points_{count}"]).repeat(masks, 1, 1)

    inputs, targets = _inputs(arrays), _targets(arrays)
    criterion = _double(mask2former.Mask2FormerLoss(config, {}))
    masks, classes = ([target[name] for target in targets] for name in ("masks", "class_labels"))
    with mock.patch.object(torch, "rand", rand):
        losses = criterion(inputs["mask_logits"], inputs["class_logits"], masks, classes)
    return _results("mask2former", losses, inputs)


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
