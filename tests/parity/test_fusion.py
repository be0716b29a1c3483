"""Queries become segments, objects, boxes and classes as in Hugging Face's transformers."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.inference import (
    instance_segmentation,
    object_detection,
    panoptic_segmentation,
    semantic_segmentation,
)
from segjax.metrics import panoptic_quality
from segjax.ops import resize
from segjax.typing import Panoptic

GOLDEN = Path(__file__).parent / "golden"
SCRIPT = GOLDEN / "transformers_fusion.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("torch", "transformers")
SHAPE = PEER["SHAPE"]
THINGS = jnp.asarray(PEER["THINGS"])


@pytest.fixture
def queries(golden):
    drawn = PEER["draw"](int(golden["seed"]))
    return {name: jnp.asarray(array) for name, array in drawn.items()}


@pytest.mark.parametrize(
    ("peer", "things", "canvas"),
    [
        ("maskformer", THINGS, None),
        ("mask2former", THINGS, (384, 384)),
        ("detr", jnp.ones_like(THINGS), None),
    ],
)
def test_segments(golden, queries, peer, things, canvas):
    result = panoptic_segmentation(
        queries["class_logits"],
        queries["mask_logits"],
        things,
        SHAPE,
        rule="transformers",
        score_threshold=PEER["THRESHOLD"],
        canvas=canvas,
    )
    number = np.cumsum(result.valid, axis=1) - 1  # theirs count the segments of each picture
    segments = np.take_along_axis(number, result.segments.reshape(len(number), -1), axis=1)
    segments = np.where(result.segments >= 0, segments.reshape(result.segments.shape), -1)
    np.testing.assert_array_equal(segments, golden[f"{peer} segments"])
    pictures, rows = np.nonzero(result.valid)
    table = [pictures, number[pictures, rows], result.classes[pictures, rows]]
    table.append(result.scores[pictures, rows])
    np.testing.assert_allclose(np.stack(table, axis=1), golden[f"{peer} table"], atol=1e-6)


def test_instances(golden, queries):
    objects = instance_segmentation(
        queries["class_logits"],
        queries["mask_logits"],
        SHAPE,
        rule="transformers",
        max_instances=queries["class_logits"].shape[1],
        score_threshold=PEER["THRESHOLD"],
    )
    pictures, rows = np.nonzero(objects.valid)
    order = np.lexsort([-objects.scores[pictures, rows], pictures])
    pictures, rows = pictures[order], rows[order]
    table = [pictures, objects.classes[pictures, rows], objects.scores[pictures, rows]]
    np.testing.assert_allclose(np.stack(table, axis=1), golden["instances table"], atol=2e-6)
    np.testing.assert_array_equal(objects.masks[pictures, rows], golden["instances masks"])


def test_semantic(golden, queries):
    class_logits, mask_logits = queries["class_logits"][0], queries["mask_logits"][0]
    scores = semantic_segmentation(class_logits, mask_logits, PEER["MASKS"])
    expected = np.moveaxis(golden["semantic scores"], 0, -1)
    np.testing.assert_allclose(resize(scores, SHAPE), expected, rtol=1e-8)


def test_boxes(golden, queries):
    objects = object_detection(
        queries["class_logits"], queries["boxes"], SHAPE, score_threshold=PEER["THRESHOLD"]
    )
    for ours, theirs in (("boxes", "boxes"), ("classes", "labels"), ("scores", "scores")):
        found = getattr(objects, ours)[objects.valid]
        np.testing.assert_allclose(found, golden[f"boxes {theirs}"], rtol=1e-6)


@functools.partial(jax.jit, static_argnames="num_classes")
def _quality(targets, predictions, things, num_classes):
    """Of the segments that come of perfect masks of the predicted ones."""
    segments, classes = predictions
    masks = segments[:, None] == jnp.arange(classes.shape[1])[:, None, None]
    class_logits = 20 * jax.nn.one_hot(classes, num_classes + 1)
    fuse = functools.partial(panoptic_segmentation, things=things, shape=segments.shape[1:])
    results = jax.lax.map(lambda x: fuse(x[0], x[1]), (class_logits, jnp.where(masks, 20.0, -20.0)))
    return panoptic_quality(results, targets, num_classes=num_classes)


def test_coco(data_dir):
    """The labelled segments have quality 1, and perturbed ones that of panopticapi."""
    other = runpy.run_path(str(GOLDEN / "panopticapi_quality.py"))
    record, is_thing = other["read_coco"](data_dir / "tiny" / "coco_panoptic" / "val")
    targets = Panoptic(**{name: jnp.asarray(x) for name, x in record.items()})
    quality = functools.partial(_quality, targets, num_classes=len(is_thing))
    perfect = quality((targets.segments, targets.classes), jnp.asarray(is_thing)).compute()
    assert perfect.pq == 1

    with np.load(GOLDEN / "panopticapi_quality.npz") as golden:
        perturbed = other["perturb"](record, int(golden["seed"]))
        # No stuff is merged: panopticapi takes the segments as they come.
        metric = quality((perturbed["segments"], perturbed["classes"]), jnp.ones_like(is_thing))
        np.testing.assert_allclose(metric.iou, golden["coco_counts"][0], rtol=1e-6)
        counts = metric.true_positives, metric.false_positives, metric.false_negatives
        np.testing.assert_array_equal(counts, golden["coco_counts"][1:])
