"""Matches of proposals, and the losses of both stages, have torchvision's values and gradients."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, matching
from segjax.typing import Instances

SCRIPT = Path(__file__).parent / "golden" / "torchvision_detection.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "torchvision")


@pytest.fixture
def targets(golden):
    valid = np.arange(3) < np.array(PEER["OBJECTS"])[:, None]
    return Instances(golden["boxes"], golden["classes"], valid, masks=golden["masks"])


@pytest.mark.parametrize("name", PEER["MATCHERS"])
def test_matches(golden, targets, name):
    high, low, allow_low_quality = PEER["MATCHERS"][name]
    matches = matching.match_proposals(
        golden["proposals"], targets, high=high, low=low, allow_low_quality=allow_low_quality
    )
    np.testing.assert_array_equal(matches, golden[f"matches_{name}"])


def test_as_many_of_each_kind_are_sampled(golden):
    matches = golden["matches_anchors"]
    indices, valid = matching.sample_proposals(
        jax.random.split(jax.random.key(0), len(matches)),
        matches,
        count=PEER["COUNT"],
        positive_fraction=PEER["FRACTION"],
    )
    sampled = np.take_along_axis(matches, np.asarray(indices), axis=-1)
    for of_kind, name in ((sampled >= 0, "positive"), (sampled == -1, "negative")):
        np.testing.assert_array_equal((of_kind & valid).sum(-1), golden[name].sum(-1))


def test_losses_and_gradients(golden, targets):
    proposals, matches = golden["proposals"], golden["matches_anchors"]
    where = golden["positive"] | golden["negative"]

    @jax.jit
    @jax.grad
    def gradients(inputs):
        return sum(value for _, value in terms(inputs))

    def terms(x):
        common = proposals, matches, targets
        averages = {
            **losses.rpn_loss(x["logits"], x["deltas"], *common, where=where),
            **losses.box_head_loss(x["class_logits"], x["class_deltas"], *common, where=where),
            **losses.mask_head_loss(x["mask_logits"], *common, where=where),
        }
        return [(name, average.value) for name, average in averages.items()]

    inputs = {name: jnp.asarray(golden[name]) for name in PEER["LOSSES"].values()}
    values = dict(terms(inputs))
    assert values.keys() == PEER["LOSSES"].keys()
    actual = gradients(inputs)
    for name, value in values.items():
        np.testing.assert_allclose(value, golden[name], rtol=1e-8)
        gradient = actual[PEER["LOSSES"][name]]
        np.testing.assert_allclose(gradient, golden[f"{name}_gradient"], rtol=1e-8, atol=1e-12)
