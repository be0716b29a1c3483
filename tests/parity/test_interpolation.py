"""`resize` and `sample` have torch's values and gradients, in float64."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.ops import resize, sample

SCRIPT = Path(__file__).parent / "golden" / "torch_interpolation.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch",)


@pytest.mark.parametrize(
    ("i", "case"), list(enumerate(PEER["RESIZES"])), ids=lambda case: str(case).replace(" ", "")
)
def test_resize(golden, i, case):
    shape, method, align_corners, antialias = case

    def function(image):
        return resize(image, shape, method=method, align_corners=align_corners, antialias=antialias)

    output, vjp = jax.vjp(function, jnp.asarray(golden["image"]))
    np.testing.assert_allclose(output, golden[f"resize_{i}_output"], atol=1e-12)
    (gradient,) = vjp(jnp.asarray(golden[f"resize_{i}_cotangent"]))
    np.testing.assert_allclose(gradient, golden[f"resize_{i}_gradient"], atol=1e-12)


@pytest.mark.parametrize(("i", "case"), list(enumerate(PEER["SAMPLES"])), ids=str)
def test_sample(golden, i, case):
    method, padding = case

    def function(features, points):
        return sample(features, points, method=method, padding=padding)

    image, points = jnp.asarray(golden["image"]), jnp.asarray(golden["points"])
    output, vjp = jax.vjp(function, image, points)
    np.testing.assert_allclose(output, golden[f"sample_{i}_output"], atol=1e-12)
    features_gradient, points_gradient = vjp(jnp.asarray(golden[f"sample_{i}_cotangent"]))
    np.testing.assert_allclose(features_gradient, golden[f"sample_{i}_gradient"], atol=1e-12)
    np.testing.assert_allclose(points_gradient, golden[f"sample_{i}_points_gradient"], atol=1e-12)


def _sizes_that_float32_rounds(limit, start):
    """(size, new_size) where `(i + start)·size/new_size` in float32 is on the wrong side of a whole
    number.
    """
    for size in range(1, limit):
        for new_size in range(1, limit):
            i = np.arange(new_size)
            rounded = np.floor((i + start).astype(np.float32) * np.float32(size / new_size))
            if (rounded != (2 * i + round(2 * start)) * size // (2 * new_size)).any():
                yield size, new_size


@pytest.mark.parametrize(("method", "start"), [("nearest", 0.0), ("nearest-exact", 0.5)])
def test_nearest_rounds_like_torch(method, start):
    torch = pytest.importorskip("torch")
    sizes = list(_sizes_that_float32_rounds(120, start))[:10]
    assert sizes
    for size, new_size in sizes:
        pixels = np.arange(size, dtype=np.float32)
        expected = torch.nn.functional.interpolate(
            torch.tensor(pixels)[None, None, :, None], size=(new_size, 1), mode=method
        )
        output = resize(pixels[:, None, None], (new_size, 1), method=method)
        np.testing.assert_array_equal(output[:, 0, 0], expected[0, 0, :, 0])
