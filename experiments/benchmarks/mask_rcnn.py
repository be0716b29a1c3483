"""Train step and inference of Mask R-CNN (ResNet-50, FPN) beside torchvision's.

    pip install -e ".[parity]" && python experiments/benchmarks/mask_rcnn.py

One image of 800×1088 pixels, not resized, with objects of 90 classes; float32; both sides hold the
same drawn weights, and all of them are trained but for the frozen batch norms. A train step is
proposals, sampling, losses, gradient and plain gradient descent; its value is the number of
parameters. Inference ends with the masks of 100 objects at the image's size; its value is how many
pixels these have, equal but for what rounding does to the order of proposals.

Untrained proposals meet no objects, so those that have one are the objects themselves. With 128 of
them both mask heads are full. With 8, torchvision's sees 8 regions; ours, on a CPU, 16 at a time.

Buffers this large are allocated anew at every run, and the page faults may cost more than the work:
`MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000` before the command spares
both sides most of them.
"""

import zlib
from collections.abc import Callable

import numpy as np
from harness import main

SHAPE, CLASSES = (800, 1088), 90
LEARNING_RATE = 1e-6  # of weights that nobody trained

FORMS = ["segjax", "torchvision", "torchvision, channels-last"]
OBJECTS = {"train step, 128 objects": 128, "train step, 8 objects": 8}
TABLE = dict.fromkeys([*OBJECTS, "inference"], FORMS)


def inputs(objects: int) -> dict[str, np.ndarray]:
    """An image `[h, w, 3]` and its objects: ellipses in their boxes, classes counted from 0."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    size = np.array(SHAPE[::-1])
    radii = rng.uniform(0.02, 0.25, (objects, 2)) * size
    centres = rng.uniform(0.25, 0.75, (objects, 2)) * size
    offset = np.stack([x, y], axis=-1) - centres[:, None, None]
    return {
        "image": rng.standard_normal((*SHAPE, 3), np.float32),
        "boxes": np.concatenate([centres - radii, centres + radii], axis=1, dtype=np.float32),
        "masks": np.sum((offset / radii[:, None, None]) ** 2, axis=-1) < 1,
        "classes": rng.integers(CLASSES, size=objects),
    }


def draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of torchvision's state dict: kernels of He's variance, but for the predictors.

    So that boxes have sizes as of objects, and about a thousand compete to be one.
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if len(shape) > 1:
        is_predictor = key.startswith(("rpn", "roi_heads.box_predictor"))
        deviation = 0.005 if is_predictor else np.sqrt(2 / np.prod(shape[1:]))
        array = rng.standard_normal(shape) * deviation
    elif key.endswith(("running_mean", "bias")):
        array = np.zeros(shape)
    else:  # what norms divide and multiply by
        array = np.ones(shape) if key.endswith("running_var") else np.full(shape, 0.7)
    return array.astype(np.float32)


def our_run(task: str) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp

    from segjax import inference, losses, models
    from segjax.pretrained.keys import to_state_dict, to_variables
    from segjax.registry import find_entry
    from segjax.typing import Instances

    model = models.maskrcnn_resnet50_fpn(CLASSES)
    arrays = inputs(OBJECTS.get(task, 0))
    image = jnp.asarray(arrays["image"])[None]
    template = jax.eval_shape(model.init, jax.random.key(0), image)
    table = find_entry("maskrcnn_resnet50_fpn").table
    blank = to_state_dict(table, jax.tree.map(lambda s: np.broadcast_to(0, s.shape), template))
    state_dict = {key: draw(key, array.shape) for key, array in blank.items()}
    variables = jax.device_put(to_variables(table, state_dict, template))
    size = sum(p.size for p in jax.tree.leaves(variables["params"]))
    targets = Instances(
        boxes=jnp.asarray(arrays["boxes"]),
        classes=jnp.asarray(arrays["classes"], jnp.int32),
        valid=jnp.ones(OBJECTS.get(task, 0), bool),
        masks=jnp.asarray(arrays["masks"]),
    )
    targets = jax.tree.map(lambda x: x[None], targets)

    @jax.jit
    def infer(variables, image):
        found = model.apply(variables, image)
        return inference.paste_objects(found.objects, found.mask_logits, SHAPE).masks

    def train_step(params, frozen, image, targets, key):
        def objective(params):
            outputs = model.apply(
                {"params": params, **frozen}, image, train=True, targets=targets, keys=key[None]
            )
            first = slice(outputs.mask_logits.shape[1])
            terms = {
                **losses.rpn_loss(
                    outputs.objectness,
                    outputs.anchor_deltas,
                    outputs.anchors,
                    outputs.anchor_matches,
                    targets,
                ),
                **losses.box_head_loss(
                    outputs.class_logits,
                    outputs.box_deltas,
                    outputs.proposals,
                    outputs.matches,
                    targets,
                ),
                **losses.mask_head_loss(
                    outputs.mask_logits,
                    outputs.proposals[:, first],
                    outputs.matches[:, first],
                    targets,
                ),
            }
            return sum(term.value for term in terms.values())

        gradient = jax.grad(objective)(params)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)

    step = jax.jit(train_step, donate_argnums=0)
    params, frozen = variables["params"], {"batch_stats": variables["batch_stats"]}

    def run():
        nonlocal params
        if task == "inference":
            return np.count_nonzero(infer(variables, image))
        params = jax.block_until_ready(step(params, frozen, image, targets, jax.random.key(0)))
        return size

    return run


def their_run(task: str, form: str) -> Callable[[], float]:
    import torch
    from torchvision.models import resnet50
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import FrozenBatchNorm2d

    # As maskrcnn_resnet50_fpn, which without weights has batch norms that are not frozen.
    backbone = resnet50(norm_layer=lambda channels: FrozenBatchNorm2d(channels, eps=0))
    model = MaskRCNN(
        _resnet_fpn_extractor(backbone, trainable_layers=5),
        CLASSES + 1,
        image_mean=[0, 0, 0],
        image_std=[1, 1, 1],
        _skip_resize=True,  # in training; in evaluation SHAPE is the size that it resizes to
    )
    state_dict = model.state_dict()
    model.load_state_dict({k: torch.tensor(draw(k, tuple(v.shape))) for k, v in state_dict.items()})
    if form.endswith("last"):
        model = model.to(memory_format=torch.channels_last)
    size = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    model.train(task != "inference")
    arrays = inputs(OBJECTS.get(task, 0))
    images = [torch.tensor(arrays["image"].transpose(2, 0, 1).copy())]
    targets = [
        {
            "boxes": torch.tensor(arrays["boxes"]),
            "labels": torch.tensor(arrays["classes"] + 1),
            "masks": torch.tensor(arrays["masks"].astype(np.uint8)),
        }
    ]

    def run():
        if task == "inference":
            with torch.inference_mode():
                return torch.count_nonzero(model(images)[0]["masks"] > 0.5).item()
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
        return size

    return run


def make_run(task: str, form: str) -> Callable[[], float]:
    return our_run(task) if form == "segjax" else their_run(task, form)


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
