"""Losses of set prediction, their matching in them, have transformers' values and gradients."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, ops
from segjax.typing import Instances

SCRIPT = Path(__file__).parent / "golden" / "hf_set_losses.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "transformers", "scipy")
INPUTS = ("class_logits", "boxes", "mask_logits")


@pytest.fixture
def targets(golden):
    height, width = golden["masks"].shape[-2:]
    boxes = ops.convert_boxes(golden["true_boxes"], "cxcywh", "xyxy")
    return Instances(
        boxes=boxes * np.array([width, height, width, height]),
        classes=golden["classes"],
        valid=np.arange(golden["classes"].shape[1]) < np.array(PEER["OBJECTS"])[:, None],
        masks=golden["masks"],
    )


def _detr(arrays, targets):
    logits, boxes = arrays["class_logits"], arrays["boxes"]
    shape = targets.masks.shape[-2:]
    return losses.detr_loss(logits, boxes, targets, shape, mask_logits=arrays["mask_logits"])


def _maskformer(arrays, targets):
    return losses.maskformer_loss(arrays["class_logits"], arrays["mask_logits"], targets)


def _mask2former(arrays, targets):
    logits, masks = arrays["class_logits"], arrays["mask_logits"]
    keys = jax.random.split(jax.random.key(0), len(logits))
    return losses.mask2former_loss(keys, logits, masks, targets, points=PEER["POINTS"])


@pytest.mark.parametrize("model", PEER["TERMS"])
def test_terms_and_gradients(golden, targets, model, monkeypatch):
    function = {"detr": _detr, "maskformer": _maskformer, "mask2former": _mask2former}[model]
    draw = lambda key, shape, dtype: jnp.asarray(golden[f"points_{shape[0]}"], dtype)
    monkeypatch.setattr(jax.random, "uniform", draw)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def objective(arrays):
        values = {name: term.value for name, term in function(arrays, targets).items()}
        return sum(values.values()), values

    inputs = {name: jnp.asarray(golden[name]) for name in INPUTS}
    (_, values), gradients = jax.jit(objective)(inputs)
    assert values.keys() == PEER["WEIGHTS"][model].keys()
    for name, value in values.items():
        np.testing.assert_allclose(value, golden[f"{model}_{name}"], rtol=1e-8)
    for name, gradient in gradients.items():
        due = golden.get(f"{model}_{name}_gradient", np.zeros(gradient.shape))
        np.testing.assert_allclose(gradient, due, rtol=1e-8, atol=1e-12)
