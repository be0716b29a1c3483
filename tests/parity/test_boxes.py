"""Boxes, anchors, pasted masks and suppression are torchvision's, in float64."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import ops

SCRIPT = Path(__file__).parent / "golden" / "torchvision_boxes.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "torchvision")


@pytest.mark.parametrize("name", PEER["IOUS"])
def test_overlap(golden, name):
    """Values and gradients; but torchvision holds the complete IoU's weight constant."""
    slopes = np.cos(np.arange(36.0)).reshape(6, 6)

    def total(a):
        iou = getattr(ops, name)(a, golden["b"])
        return jnp.sum(iou * slopes), iou

    gradient, iou = jax.jit(jax.grad(total, has_aux=True))(golden["a"])
    np.testing.assert_allclose(iou, golden[name], atol=1e-12)
    if name != "complete_box_iou":
        np.testing.assert_allclose(gradient, golden[f"{name}_gradient"], atol=1e-12)


def test_coding(golden):
    for name, first in [("encode_boxes", "a"), ("decode_boxes", "deltas")]:
        coded = getattr(ops, name)(golden[first], golden["b"], weights=PEER["WEIGHTS"])
        np.testing.assert_allclose(coded, golden[name], atol=1e-12)


def test_pasted_masks(golden):
    pasted = ops.paste_masks(golden["masks"], golden["a"] * 1.5, PEER["IMAGE"])
    np.testing.assert_allclose(pasted, golden["paste_masks"], atol=1e-12)


def test_anchors(golden):
    levels = ops.pyramid_anchors(
        PEER["SHAPES"],
        strides=PEER["STRIDES"],
        sizes=PEER["SIZES"],
        aspect_ratios=PEER["RATIOS"],
        rounded=True,
        order="ratio",
    )
    np.testing.assert_array_equal(np.concatenate(levels), golden["anchors"])


@pytest.mark.parametrize("threshold", PEER["THRESHOLDS"])
def test_suppression(golden, threshold):
    boxes, scores = golden["crowd"], golden["scores"]
    keep = ops.nms(boxes, scores, iou_threshold=threshold)
    np.testing.assert_array_equal(keep, golden[f"nms_{threshold}"])
    keep = ops.batched_nms(boxes, scores, golden["classes"], iou_threshold=threshold)
    np.testing.assert_array_equal(keep, golden[f"batched_nms_{threshold}"])
