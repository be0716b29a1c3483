"""ROIAlign and ROI pooling have torchvision's values and gradients, in float64."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.ops import roi_align, roi_pool

SCRIPT = Path(__file__).parent / "golden" / "torchvision_regions.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "torchvision")


@functools.partial(jax.jit, static_argnames=("spatial_scale", "sampling_ratio", "aligned"))
def _run(features, boxes, cotangent, spatial_scale, sampling_ratio, aligned):
    def pool(features):
        return roi_align(
            features,
            boxes,
            PEER["OUTPUT_SIZE"],
            spatial_scale=spatial_scale,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
        )

    output, pull = jax.vjp(pool, features)
    return output, *pull(cotangent)


@pytest.mark.parametrize(("i", "case"), list(enumerate(PEER["CASES"])), ids=str)
def test_value_and_gradient(golden, i, case):
    inputs = (jnp.asarray(golden[name]) for name in ("features", "boxes", "cotangent"))
    output, gradient = _run(*inputs, *case)
    np.testing.assert_allclose(output, golden[f"{i}_output"], atol=1e-12)
    np.testing.assert_allclose(gradient, golden[f"{i}_gradient"], atol=1e-12)


@pytest.mark.parametrize("scale", PEER["POOLED_SCALES"])
def test_pooling(golden, scale):
    features, boxes = jnp.asarray(golden["features"]), jnp.asarray(golden["boxes"])

    def pool(features):
        return roi_pool(features, boxes, PEER["OUTPUT_SIZE"], spatial_scale=scale)

    output, pull = jax.vjp(pool, features)
    np.testing.assert_allclose(output, golden[f"pool_{scale}_output"], atol=1e-12)
    (gradient,) = pull(jnp.asarray(golden["cotangent"]))
    np.testing.assert_allclose(gradient, golden[f"pool_{scale}_gradient"], atol=1e-12)
