"""Each task's objective leads to its best score: a few fixed pictures are learnt by heart."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from segjax.data import Classes
from segjax.models import QueryOutput, SemanticOutput
from segjax.objectives import DetrObjective, Mask2FormerObjective
from segjax.tasks import InstanceTask, PanopticTask, SemanticTask
from segjax.training import create_state, make_eval_step, make_train_step
from segjax.training.evaluate import to_host
from segjax.typing import Panoptic, Record

POINTS = Mask2FormerObjective(points=256)
THINGS = (False, True, True)
CLASSES = Classes(("ground", "red", "green"), ((90, 90, 90), (200, 0, 0), (0, 200, 0)), THINGS)


class Memory(nn.Module):
    """A linear map of whole pictures: a model that can hold a few, and compiles at once."""

    outputs: Any

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        return self.outputs(lambda *shape: nn.Dense(np.prod(shape))(x).reshape(-1, *shape))


def _of_pixels(dense):
    return SemanticOutput(dense(16, 16, 3))


def _of_masks(dense):
    return QueryOutput(dense(6, 4), mask_logits=dense(6, 16, 16))


def _of_boxes(dense):
    return dataclasses.replace(_of_masks(dense), boxes=nn.sigmoid(dense(6, 4)))


def _pictures():
    """Four pictures: one to three squares, each of either class, on a ground."""
    rng = np.random.default_rng(0)
    segments = np.zeros((4, 16, 16), np.int32)
    classes = np.zeros((4, 4), np.int32)
    for i in range(4):
        for k, corner in enumerate(rng.permutation(4)[: 1 + i % 3], start=1):
            top, left = 8 * np.array(divmod(corner, 2)) + rng.integers(0, 2, 2)
            segments[i, top : top + 6, left : left + 6] = k
            classes[i, k] = rng.integers(1, 3)
    valid = np.arange(4) <= segments.max((1, 2))[:, None]
    labels = np.take_along_axis(classes, segments.reshape(4, -1), 1).reshape(segments.shape)
    return Record(
        image=rng.uniform(0, 1, (4, 16, 16, 3)).astype(np.float32),
        labels=labels,
        where=np.ones(segments.shape, bool),
        size=np.full((4, 2), 16, np.int32),
        panoptic=Panoptic(segments, classes, valid, np.zeros_like(valid)),
        index=np.arange(4, dtype=np.int32),
        valid=np.ones(4, bool),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        (SemanticTask(3), _of_pixels),
        (
            InstanceTask(3, DetrObjective(cross_entropy=2.0), things=THINGS, max_objects=4),
            _of_boxes,
        ),
        (
            PanopticTask(3, Mask2FormerObjective(points=256), things=THINGS, max_objects=4),
            _of_masks,
        ),
    ],
    ids=["semantic", "instance", "panoptic"],
)
def test_a_few_pictures_are_learnt_by_heart(task, outputs):
    record, model = _pictures(), Memory(outputs)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, 100))
    create = functools.partial(create_state, model=model, optimizer=optimizer, images=record.image)
    state = jax.jit(create)(jax.random.key(0))
    step = jax.jit(make_train_step(task, model, optimizer))
    losses = []
    for _ in range(100):
        state, metrics = step(state, record)
        losses.append(float(metrics["loss"]))
    evaluate = jax.jit(make_eval_step(task, model, render=lambda record: record))
    metric, _ = evaluate({"params": state.params}, record)
    scores = task.summary(jax.tree.map(to_host, metric), CLASSES)
    assert scores[task.score] > 0.99
    # Points at a mask's border have targets between 0 and 1, which cost something in any case.
    assert losses[-1] < 0.3 * losses[0]
