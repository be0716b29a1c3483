"""Boxes, anchors, pasted masks and suppression by torchvision: writes torchvision_boxes.npz.

Run `python torchvision_boxes.py` where torchvision is installed.
"""

from pathlib import Path

import numpy as np

IMAGE = (17, 23)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
SHAPES, STRIDES = [(5, 7), (3, 4)], [(3, 3), (5, 5)]
SIZES, RATIOS = [[8.0], [16.0, 24.0]], [0.5, 1.0, 2.0]
IOUS = ["box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"]
THRESHOLDS = [0.0, 0.3, 0.7]


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn by NumPy, and under the name of each function what it makes of them."""
    import torch
    from torchvision import ops
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    rng = np.random.default_rng(seed)

    def draw(number, extent, side):
        start = rng.uniform(-3, extent, (number, 2))
        return np.concatenate([start, start + rng.uniform(1, side, (number, 2))], axis=-1)

    arrays = {
        "a": draw(6, 8, 6),
        "b": draw(6, 8, 6),
        "deltas": rng.normal(scale=10, size=(6, 4)),
        "masks": rng.random((6, 5, 5)),
        "crowd": draw(60, 20, 12),
        "scores": np.round(rng.random(60), 1),
        "classes": rng.integers(3, size=60),
    }
    x = {name: torch.tensor(array) for name, array in arrays.items()}

    slopes = torch.cos(torch.arange(36.0, dtype=torch.float64)).reshape(6, 6)
    for name in IOUS:
        a = x["a"].clone().requires_grad_()
        # Theirs adds a constant to the denominators of the last two, where we have an exact 0.
        exact = {"eps": 0.0} if name in IOUS[2:] else {}
        iou = getattr(ops, name)(a, x["b"], **exact)
        (iou * slopes).sum().backward()
        arrays[name], arrays[f"{name}_gradient"] = iou.detach().numpy(), a.grad.numpy()

    coder = BoxCoder(WEIGHTS)
    arrays["encode_boxes"] = coder.encode([x["a"]], [x["b"]])[0].numpy()
    arrays["decode_boxes"] = coder.decode(x["deltas"], [x["b"]])[:, 0].numpy()
    pasted = paste_masks_in_image(x["masks"][:, None], x["a"] * 1.5, IMAGE)
    arrays["paste_masks"] = pasted[:, 0].numpy()

    generator = AnchorGenerator(tuple(map(tuple, SIZES)), (tuple(RATIOS),) * len(SIZES))
    maps = [torch.zeros(1, 1, *shape) for shape in SHAPES]
    images = ImageList(torch.zeros(1, 3, *IMAGE), [IMAGE])
    arrays["anchors"] = generator(images, maps)[0].numpy()

    for threshold in THRESHOLDS:
        for name, kept in {
            "nms": ops.nms(x["crowd"], x["scores"], threshold),
            "batched_nms": ops.batched_nms(x["crowd"], x["scores"], x["classes"], threshold),
        }.items():
            arrays[f"{name}_{threshold}"] = np.isin(np.arange(60), kept.numpy())
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
