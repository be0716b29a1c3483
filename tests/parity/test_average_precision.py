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


def _compare(golden, name, predictions, targets, **options):
    metric = average_precision(_instances(predictions), _instances(targets), **options)
    *figures, class_ap = dataclasses.astuple(metric.compute())
    np.testing.assert_allclose(figures, golden[f"{name}_figures"], atol=1e-12)
    np.testing.assert_allclose(class_ap, golden[f"{name}_class_ap"], atol=1e-12)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_crowds_ties_and_empty_images(golden, kind):
    drawn = PEER["draw"](int(golden["seed"]))
    _compare(golden, kind, *drawn, num_classes=PEER["CLASSES"], kind=kind)


def test_coco(golden, data_dir):
    """Real masks, against themselves: shifted, doubled, some of another class."""
    if "coco_figures" not in golden:
        pytest.skip("drawn without SEGJAX_TEST_DATA")
    targets = PEER["read_coco"](data_dir / "tiny" / "coco_panoptic" / "val")
    predictions = PEER["perturb"](targets, int(golden["seed"]))
    classes = PEER["COCO_CLASSES"]
    _compare(golden, "coco", predictions, targets, num_classes=classes, kind="mask")
