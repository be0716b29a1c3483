"""Matches and losses of Mask R-CNN's two stages by torchvision: writes torchvision_detection.npz.

Run `python torchvision_detection.py` where torchvision is installed.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

IMAGE, SIDE, CLASSES = (18, 22), 4, 3
OBJECTS = (3, 2)
MATCHERS = {"anchors": (0.7, 0.3, True), "proposals": (0.5, 0.5, False)}
COUNT, FRACTION = 10, 0.5
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LOSSES = {
    "objectness": "logits",
    "rpn_box": "deltas",
    "class": "class_logits",
    "box": "class_deltas",
    "mask": "mask_logits",
}


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy, matches, a sample of them, and each loss with its gradient."""
    import torch
    from torchvision.models.detection import _utils, roi_heads, rpn
    from torchvision.ops import box_iou

    rng = np.random.default_rng(seed)
    size = np.array(IMAGE[::-1] * 2)
    start = rng.uniform(0, 12, (2, 3, 2))
    boxes = np.concatenate([start, start + rng.uniform(3, 9, (2, 3, 2))], axis=-1)
    near = np.repeat(boxes, 4, axis=1) + rng.normal(scale=0.6, size=(2, 12, 4))
    start = rng.uniform(0, 12, (2, 12, 2))
    far = np.concatenate([start, start + rng.uniform(1, 9, (2, 12, 2))], axis=-1)
    arrays = {
        "boxes": np.clip(boxes, 0, size),
        "proposals": np.clip(np.concatenate([near, far], axis=1), 0, size),
        "classes": rng.integers(CLASSES, size=(2, 3)),
        "masks": rng.random((2, 3, *IMAGE)) < 0.5,
        "logits": rng.normal(size=(2, 24)),
        "deltas": rng.normal(size=(2, 24, 4)),
        "class_logits": rng.normal(size=(2, 24, CLASSES + 1)),
        "class_deltas": rng.normal(size=(2, 24, CLASSES + 1, 4)),
        "mask_logits": rng.normal(size=(2, 24, SIDE, SIDE, CLASSES + 1)),
    }
    x = {name: torch.tensor(array) for name, array in arrays.items()}
    truth = [boxes[:n] for boxes, n in zip(x["boxes"], OBJECTS, strict=True)]
    proposals = list(x["proposals"])

    matches = {}
    for name, options in MATCHERS.items():
        matcher = _utils.Matcher(*options)
        pairs = zip(truth, proposals, strict=True)
        matches[name] = torch.stack([matcher(box_iou(a, b)) for a, b in pairs])
        arrays[f"matches_{name}"] = matches[name].numpy()
    coder = _utils.BoxCoder((1.0, 1.0, 1.0, 1.0))
    matched = [a[m.clamp(min=0)] for a, m in zip(truth, matches["anchors"], strict=True)]
    due = coder.encode(matched, proposals)

    torch.manual_seed(seed)
    sampler = _utils.BalancedPositiveNegativeSampler(COUNT, FRACTION)
    kinds = [torch.where(m == -2, -1, (m >= 0).double()) for m in matches["anchors"]]
    chosen = sampler(kinds)
    arrays["positive"], arrays["negative"] = (torch.stack(c).numpy() == 1 for c in chosen)

    leaves = {name: x[name].clone().requires_grad_() for name in LOSSES.values()}
    values = {}
    values["objectness"], values["rpn_box"] = rpn.RegionProposalNetwork.compute_loss(
        SimpleNamespace(fg_bg_sampler=lambda _: chosen),
        leaves["logits"],
        leaves["deltas"].reshape(-1, 4),
        kinds,
        due,
    )

    sampled = torch.tensor(arrays["positive"] | arrays["negative"])
    objects = matches["anchors"].clamp(min=0)
    labels = torch.where(
        torch.tensor(arrays["positive"]), torch.gather(x["classes"], 1, objects) + 1, 0
    )
    coder = _utils.BoxCoder(WEIGHTS)
    values["class"], values["box"] = roi_heads.fastrcnn_loss(
        leaves["class_logits"][sampled],
        leaves["class_deltas"][sampled].flatten(1),
        [of[taken] for of, taken in zip(labels, sampled, strict=True)],
        [of[taken] for of, taken in zip(coder.encode(matched, proposals), sampled, strict=True)],
    )
    positive = torch.tensor(arrays["positive"])
    values["mask"] = roi_heads.maskrcnn_loss(
        leaves["mask_logits"][positive].permute(0, 3, 1, 2),
        [of[taken] for of, taken in zip(proposals, positive, strict=True)],
        list(x["masks"]),
        list(x["classes"] + 1),
        [of[taken] for of, taken in zip(objects, positive, strict=True)],
    )
    sum(values.values()).backward()
    for name, value in values.items():
        arrays[name] = value.detach().numpy()
        arrays[f"{name}_gradient"] = leaves[LOSSES[name]].grad.numpy()
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
