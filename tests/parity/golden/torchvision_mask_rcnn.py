"""torchvision's Mask R-CNN, small and in float64: writes torchvision_mask_rcnn.npz.

Both sides hold the weights that `draw_weights` draws from the original's keys. All anchors and
proposals are sampled, so that nothing is random in training. Run `python torchvision_mask_rcnn.py`
where torch and torchvision are installed.
"""

import functools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from weights import draw_state_dict

CLASSES, FEATURES, HIDDEN = 3, 8, 16
CANVAS = 123, 187
SIZES = CANVAS, (101, 150)
OBJECTS = 3
ANCHOR_SIZES = 8.0, 16.0, 32.0, 64.0, 128.0
LEVEL_PROPOSALS, MAX_PROPOSALS, MAX_DETECTIONS = 60, 80, 50
ALL = 10_000  # more than there are anchors
# Keys in whose arrays' direction the loss's gradient is kept: one number each.
_KEYS = [
    "backbone.body.conv1.weight",
    "backbone.body.layer3.0.conv2.weight",
    "backbone.fpn.inner_blocks.3.0.weight",
    "backbone.fpn.layer_blocks.0.0.weight",
    "rpn.head.conv.0.0.weight",
    "rpn.head.bbox_pred.weight",
    "roi_heads.box_predictor.bbox_pred.bias",
    "roi_heads.mask_head.1.0.weight",
    "roi_heads.mask_predictor.conv5_mask.weight",
]
KEYS = {
    "v1": [*_KEYS, "roi_heads.box_head.fc6.weight"],
    "v2": [
        *_KEYS,
        "backbone.body.bn1.weight",
        "backbone.fpn.layer_blocks.1.1.weight",
        "roi_heads.box_head.0.1.weight",
        "roi_heads.box_head.5.weight",
        "roi_heads.mask_head.0.1.bias",
    ],
}


def draw_weights(shapes) -> dict[str, np.ndarray]:
    """As `draw_state_dict`, but boxes stay near those that they refine, and classes compete."""
    weights = draw_state_dict(shapes)
    heads = ".bbox_pred.", ".cls_score."
    return {key: 0.1 * x if any(h in key for h in heads) else x for key, x in weights.items()}


def draw_images(seed) -> np.ndarray:
    """Two, the second of which fills its canvas in part only."""
    images = np.random.default_rng(int(seed)).normal(size=(2, *CANVAS, 3))
    height, width = SIZES[1]
    images[1, height:] = images[1, :, width:] = 0
    return images


def draw_objects(seed, name) -> dict[str, np.ndarray]:
    """Boxes, classes and masks on the canvas, and which are valid: in v1 the second has none."""
    rng = np.random.default_rng([int(seed), 1])
    start, sides = rng.uniform(0, 0.5, (2, 2, OBJECTS, 2))
    within = np.array([size[::-1] for size in SIZES])[:, None]
    masks = rng.random((2, OBJECTS, *CANVAS)) < 0.5
    valid = np.ones((2, OBJECTS), bool)
    valid[1] = name == "v2"
    return {
        "boxes": np.concatenate([start * within, (start + sides) * within], axis=-1),
        "classes": rng.integers(CLASSES, size=(2, OBJECTS)),
        "masks": masks,
        "valid": valid,
    }


def build(name):
    from torch import nn
    from torchvision.models.detection import MaskRCNN, faster_rcnn, mask_rcnn
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.ops import FrozenBatchNorm2d

    if name == "v1":
        norm = None
        body = ResNet(
            BasicBlock, [1, 1, 1, 1], norm_layer=functools.partial(FrozenBatchNorm2d, eps=0.0)
        )
        box_head = faster_rcnn.TwoMLPHead(FEATURES * 7 * 7, HIDDEN)
    else:
        norm = nn.BatchNorm2d
        body = ResNet(BasicBlock, [1, 1, 1, 1])
        box_head = faster_rcnn.FastRCNNConvFCHead(
            (FEATURES, 7, 7), [FEATURES] * 4, [HIDDEN], norm_layer=norm
        )
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    backbone = BackboneWithFPN(body, layers, [64, 128, 256, 512], FEATURES, norm_layer=norm)
    model = MaskRCNN(
        backbone,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in ANCHOR_SIZES), ((0.5, 1.0, 2.0),) * 5
        ),
        rpn_head=RPNHead(FEATURES, 3, conv_depth=1 if name == "v1" else 2),
        rpn_pre_nms_top_n_train=LEVEL_PROPOSALS,
        rpn_pre_nms_top_n_test=LEVEL_PROPOSALS,
        rpn_post_nms_top_n_train=MAX_PROPOSALS,
        rpn_post_nms_top_n_test=MAX_PROPOSALS,
        rpn_batch_size_per_image=ALL,
        rpn_positive_fraction=1.0,
        box_head=box_head,
        box_predictor=faster_rcnn.FastRCNNPredictor(HIDDEN, CLASSES + 1),
        box_detections_per_img=MAX_DETECTIONS,
        box_batch_size_per_image=ALL,
        box_positive_fraction=1.0,
        mask_head=mask_rcnn.MaskRCNNHeads(FEATURES, [FEATURES] * 2, 1, norm_layer=norm),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(FEATURES, FEATURES, CLASSES + 1),
    )
    model.transform.resize = lambda image, target=None: (image, target)
    assign = model.rpn.assign_targets_to_anchors
    # Its labels are float32, and so would be the loss.
    model.rpn.assign_targets_to_anchors = lambda *args: [
        [x.double() for x in xs] for xs in assign(*args)
    ]
    return model.double()


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """For each model, under `<model> …`, what the test module compares."""
    arrays = {"seed": np.array(seed)}
    for name, keys in KEYS.items():
        record = _record(build(name), seed, name, keys)
        arrays |= {f"{name} {entry}": array for entry, array in record.items()}
    return arrays


def _record(model, seed, name, keys):
    import torch

    shapes = {key: value.shape for key, value in model.state_dict().items()}
    weights = {key: torch.tensor(value) for key, value in draw_weights(shapes).items()}
    model.load_state_dict(weights)
    images = [
        torch.tensor(np.moveaxis(image[:height, :width], -1, 0))
        for image, (height, width) in zip(draw_images(seed), SIZES, strict=True)
    ]
    stages = {}
    model.backbone.register_forward_hook(lambda module, args, out: stages.update(levels=out))
    model.rpn.register_forward_hook(lambda module, args, out: stages.update(proposals=out[0]))
    model.eval()
    with torch.no_grad():
        found = model(images)
    record = {
        f"level{i}": level[:, :, ::4, ::4].movedim(1, -1).numpy()
        for i, level in enumerate(stages["levels"].values())
    }
    for i, (proposals, objects) in enumerate(zip(stages["proposals"], found, strict=True)):
        record[f"proposals{i}"] = proposals.numpy()
        for entry in ("boxes", "scores", "labels"):
            record[f"{entry}{i}"] = objects[entry].numpy()
        record[f"masks{i}"] = objects["masks"][:, 0].numpy() > 0.5

    model.train()
    drawn = draw_objects(seed, name)
    targets = []
    for i, (height, width) in enumerate(SIZES):
        chosen = {key: torch.tensor(value[i][drawn["valid"][i]]) for key, value in drawn.items()}
        targets.append(
            {
                "boxes": chosen["boxes"],
                "labels": chosen["classes"] + 1,
                "masks": chosen["masks"][:, :height, :width].to(torch.uint8),
            }
        )
    losses = model(images, targets)
    sum(losses.values()).backward()
    record |= {key: value.detach().numpy() for key, value in losses.items()}
    parameters = dict(model.named_parameters())
    slopes = [(parameters[key].grad * parameters[key]).sum().item() for key in keys]
    record["gradient"] = np.array(slopes)
    return record | {
        key: value.numpy()
        for key, value in model.state_dict().items()
        if ("mask_head" in key or "box_head" in key or "inner_blocks.3" in key) and "running" in key
    }


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
