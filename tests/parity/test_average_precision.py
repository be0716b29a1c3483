"""Average precision and recall are pycocotools'."""

import dataclasses
import runpy
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from segjax.metrics import average_precision
from segjax.typing import Instances

SCRIPT = Path(__file__).parent / "golden" / "pycocotools_precision.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("pycocotools",)


def _instances(record):
    """In float32: boxes and areas are whole numbers."""
    arrays = {
        name: jnp.asarray(x, jnp.float32 if np.issubdtype(x.dtype, np.floating) else x.dtype)
        for name, x in record.items()
    }
    return Instances(**arrays)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_crowds_ties_and_empty_images(golden, kind):
    predictions, targets = map(_instances, PEER["draw"](int(golden["seed"])))
    metric = average_precision(predictions, targets, num_classes=PEER["CLASSES"], kind=kind)
    *figures, class_ap = dataclasses.astuple(metric.compute())
    np.testing.assert_allclose(figures, golden[f"{kind}_figures"], atol=1e-12)
    np.testing.assert_allclose(class_ap, golden[f"{kind}_class_ap"], atol=1e-12)
