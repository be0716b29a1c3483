"""Panoptic quality is panopticapi's."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.metrics import panoptic_quality
from segjax.typing import Panoptic

SCRIPT = Path(__file__).parent / "golden" / "panopticapi_quality.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("panopticapi",)
quality = jax.jit(panoptic_quality, static_argnames="num_classes")


def _compare(metric, is_thing, counts, means):
    found = metric.true_positives, metric.false_positives, metric.false_negatives
    np.testing.assert_array_equal(found, counts[1:])
    np.testing.assert_allclose(metric.iou, counts[0], rtol=1e-6)
    for where, expected in zip((None, is_thing, ~is_thing), means, strict=True):
        scores = metric.compute(where=where)
        np.testing.assert_allclose((scores.pq, scores.sq, scores.rq), expected, rtol=1e-6)


def _panoptic(record):
    return Panoptic(**{name: jnp.asarray(x) for name, x in record.items()})


def test_void_and_crowds(golden):
    predictions, targets = map(_panoptic, PEER["draw"](int(golden["seed"])))
    metric = quality(predictions, targets, num_classes=PEER["CLASSES"])
    _compare(metric, golden["things"], golden["counts"], golden["means"])


def test_coco(golden, data_dir):
    """Real segments, some of them shifted, merged, dropped or of another class."""
    if "coco_counts" not in golden:
        pytest.skip("drawn without SEGJAX_TEST_DATA")
    record, is_thing = PEER["read_coco"](data_dir / "tiny" / "coco_panoptic" / "val")
    targets = _panoptic(record)
    perfect = quality(targets, targets, num_classes=len(is_thing)).compute()
    assert perfect.pq == 1
    predictions = _panoptic(PEER["perturb"](record, int(golden["seed"])))
    metric = quality(predictions, targets, num_classes=len(is_thing))
    _compare(metric, is_thing, golden["coco_counts"], golden["coco_means"])
