"""Mask R-CNN is torchvision's, stage by stage, in evaluation and in training, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import inference
from segjax.models.backbones.resnet import BasicBlock, ResNet
from segjax.models.mask_rcnn import MaskRCNN
from segjax.pretrained.keys import to_state_dict, to_variables
from segjax.pretrained.tables.mask_rcnn import MASK_RCNN, MASK_RCNN_V2
from segjax.tasks import InstanceTask
from segjax.typing import Instances, Record

SCRIPT = Path(__file__).parent / "golden" / "torchvision_mask_rcnn.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torchvision",)
FORMS = {
    "v1": (MASK_RCNN, {"norm_epsilon": 0.0, "box_features": (PEER["HIDDEN"],) * 2}),
    "v2": (
        MASK_RCNN_V2,
        {
            "frozen_norm": False,
            "head_norm": True,
            "rpn_convs": 2,
            "box_convs": 4,
            "box_features": (PEER["HIDDEN"],),
        },
    ),
}
LOSSES = {
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "class": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}


def build(options):
    return MaskRCNN(
        PEER["CLASSES"],
        backbone=functools.partial(ResNet, (1, 1, 1, 1), BasicBlock),
        features=PEER["FEATURES"],
        mask_convs=2,
        anchor_sizes=PEER["ANCHOR_SIZES"],
        level_proposals=(PEER["LEVEL_PROPOSALS"],) * 2,
        max_proposals=(PEER["MAX_PROPOSALS"],) * 2,
        anchor_samples=PEER["ALL"],
        anchor_positives=1.0,
        proposal_samples=PEER["MAX_PROPOSALS"] + PEER["OBJECTS"],
        proposal_positives=1.0,
        max_detections=PEER["MAX_DETECTIONS"],
        dtype=jnp.float64,
        param_dtype=jnp.float64,
        **options,
    )


def is_stage(module, method):
    return method == "_propose" or module.name == "pyramid"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_stages_losses_statistics_and_gradients(golden, name):
    table, options = FORMS[name]
    model, images = build(options), PEER["draw_images"](golden["seed"])
    template = jax.eval_shape(model.init, jax.random.key(0), images)
    blank = to_state_dict(table, jax.tree.map(lambda s: np.broadcast_to(0.0, s.shape), template))
    weights = PEER["draw_weights"]({key: array.shape for key, array in blank.items()})
    variables = to_variables(table, weights, template)
    targets = Instances(**PEER["draw_objects"](golden["seed"], name))
    sizes = np.array(PEER["SIZES"])

    def objective(params, batch_stats):
        output, changed = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            targets=targets,
            keys=jax.random.split(jax.random.key(0), 2),
            sizes=sizes,
            mutable=["batch_stats"],
        )
        task = InstanceTask.for_model(
            "maskrcnn_resnet50_fpn", PEER["CLASSES"], max_objects=PEER["OBJECTS"]
        )
        terms = task.losses(output, Record(image=images, instances=targets), jax.random.key(0))
        losses = {name: term.value for name, term in terms.items()}
        return sum(losses.values()), (losses, changed)

    @jax.jit
    def run(variables):
        found, stages = model.apply(
            variables, images, sizes=sizes, capture_intermediates=is_stage, mutable="intermediates"
        )
        objects = inference.paste_objects(found.objects, found.mask_logits, PEER["CANVAS"])
        gradient, aside = jax.grad(objective, has_aux=True)(
            variables["params"], variables["batch_stats"]
        )
        return objects, stages["intermediates"], gradient, aside

    objects, stages, gradient, (losses, changed) = jax.device_get(run(variables))
    expected = {k.split()[1]: array for k, array in golden.items() if k.startswith(f"{name} ")}
    same = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-9)

    levels = stages["pyramid"]["__call__"][0]
    for i, level in enumerate([*levels, levels[-1][:, ::2, ::2]]):
        same(level[:, ::4, ::4], expected[f"level{i}"])
    (proposals,) = stages["_propose"]
    for i, (height, width) in enumerate(PEER["SIZES"]):
        same(proposals.boxes[i][proposals.valid[i]], expected[f"proposals{i}"])
        number = len(expected[f"scores{i}"])
        same(objects.boxes[i, :number], expected[f"boxes{i}"])
        same(objects.scores[i, :number], expected[f"scores{i}"])
        np.testing.assert_array_equal(objects.classes[i, :number] + 1, expected[f"labels{i}"])
        # An object whose pasted mask has no pixel is none of ours.
        masks = expected[f"masks{i}"]
        np.testing.assert_array_equal(objects.masks[i, :number, :height, :width], masks)
        np.testing.assert_array_equal(objects.valid[i, :number], masks.any((1, 2)))
        assert not objects.valid[i, number:].any()
    for ours, theirs in LOSSES.items():
        same(losses[ours], expected[theirs])
    slopes = to_state_dict(table, {"params": gradient})
    same([np.vdot(slopes[key], weights[key]) for key in PEER["KEYS"][name]], expected["gradient"])
    statistics = to_state_dict(table, changed)
    for key in expected:
        if "running" in key:
            same(statistics[key], expected[key])
