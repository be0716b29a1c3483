"""Mask R-CNN in the instance task: one program without the host, the same on any devices."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose

from segjax.models import MaskRCNN
from segjax.tasks import InstanceTask
from segjax.training import create_state, make_train_step
from segjax.training.parallel import Parallel, fetch, make_mesh
from segjax.typing import Instances, Record


class Means(nn.Module):
    """Means of colours at each stride, as a `ResNet` gives features: compiles at once."""

    frozen_norm: bool
    epsilon: float
    remat: bool
    axis_name: str | None
    dtype: Any
    param_dtype: Any

    def __call__(self, images, train=False):
        sides = {f"stage{i}": 2 ** (i + 1) for i in range(1, 5)}
        return {stage: nn.avg_pool(images, (n, n), (n, n)) for stage, n in sides.items()}


TASK = InstanceTask.for_model("maskrcnn_tiny", 2, max_objects=2)
MODEL = MaskRCNN(
    2,
    Means,
    features=8,
    head_norm=True,
    box_convs=1,
    box_features=(8,),
    mask_convs=1,
    anchor_sizes=(4.0, 8.0, 16.0, 32.0, 64.0),
    level_proposals=(8, 8),
    max_proposals=(8, 8),
    anchor_samples=16,
    proposal_samples=8,
    proposal_positives=0.5,
    max_detections=4,
)
# Its mask head takes the regions of an example by themselves.
WITHOUT_NORMS = MODEL.clone(head_norm=False)
OPTIMIZER = optax.sgd(0.1)
PARALLEL = {"pmap": lambda: Parallel(), "mesh 4x2": lambda: Parallel(make_mesh(fsdp=2))}


def _batch(examples=8):
    """Up to two squares; one example fills up the batch, some have no object, one is a crowd."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, 16, (examples, 2, 2))
    corners = np.concatenate([start, start + rng.integers(4, 16, (examples, 2, 2))], axis=-1)
    first, last = corners[..., :2, None], corners[..., 2:, None]
    columns, rows = np.moveaxis((first <= np.arange(32)) & (np.arange(32) < last), 2, 0)
    masks = rows[..., :, None] & columns[..., None, :]
    objects = Instances(
        corners.astype(np.float32),
        rng.integers(2, size=(examples, 2), dtype=np.int32),
        np.arange(2) < np.arange(examples)[:, None] % 3,
        masks=masks,
        crowd=np.arange(2 * examples).reshape(examples, 2) == 10,
    )
    noise = rng.uniform(0, 0.4, (examples, 32, 32, 3))
    return Record(
        image=(noise + 0.6 * masks.any(1)[..., None]).astype(np.float32),
        instances=objects,
        index=np.arange(5, 5 + examples, dtype=np.int32),
        valid=np.arange(examples) != 4,
    )


def _state(model):
    """Drawn by NumPy: there is nothing to compile."""
    image = np.zeros((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) < 2:
            return rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        width = np.sqrt(1 / np.prod(leaf.shape[:-1]))
        return rng.normal(size=leaf.shape, scale=width).astype(np.float32)

    variables = jax.tree.map(draw, shapes)
    state = create_state(jax.random.key(0), model, OPTIMIZER, image, variables=variables)
    return jax.tree.map(np.array, state)


@functools.cache
def _one_device(model):
    step = jax.jit(make_train_step(TASK, model, OPTIMIZER))
    return jax.device_get(step(_state(model), _batch()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "model"),
    [
        pytest.param("pmap", MODEL, id="pmap"),
        pytest.param("mesh 4x2", MODEL, id="mesh 4x2"),
        pytest.param("mesh 4x2", WITHOUT_NORMS, id="mesh 4x2, no norms"),
    ],
)
def test_eight_devices_take_the_step_that_one_does(kind, model):
    """Statistics over proposals are the whole batch's, and samples those of the example."""
    parallel, state = PARALLEL[kind](), _state(model)
    step = make_train_step(TASK, model, OPTIMIZER, axis_name=parallel.axis_name)
    placed = parallel.place(state)
    state, metrics = fetch(parallel.train_step(step, placed)(placed, _batch()))
    expected, due = _one_device(model)
    assert due["mask"] > 0
    assert due["box"] > 0
    jax.tree.map(
        lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (state.params, state.model_state, metrics),
        (expected.params, expected.model_state, due),
    )


@pytest.mark.slow
def test_training_and_prediction_are_programs_without_the_host():
    step = jax.make_jaxpr(make_train_step(TASK, MODEL, OPTIMIZER))(_state(MODEL), _batch())
    predict = functools.partial(TASK.predict, MODEL)
    program = jax.make_jaxpr(predict)(_state(MODEL).variables, _batch().image)
    for text in map(str, (step, program)):
        assert "dot_general" in text
        assert "callback" not in text
        assert "infeed" not in text


@pytest.mark.slow
def test_objects_lie_in_the_picture():
    """Whatever the canvas has beyond it, in training's proposals and in what is predicted."""
    sizes = np.int32([[12, 20], [30, 8]] * 4)
    task, state = dataclasses.replace(TASK, scale=0.5), _state(MODEL)
    predict = jax.jit(functools.partial(task.predict, MODEL))
    found = predict(state.variables, _batch().image, sizes)
    beyond = found.boxes[..., 2:] > sizes[:, None, ::-1]
    assert not (found.valid[..., None] & beyond).any()
    blind = predict(state.variables, _batch().image)
    assert (blind.valid[..., None] & (blind.boxes[..., 2:] > sizes[:, None, ::-1])).any()

    objects = _batch().instances
    nothing = dataclasses.replace(
        objects, boxes=np.zeros_like(objects.boxes), valid=np.zeros_like(objects.valid)
    )
    record = _batch().replace(size=sizes, instances=nothing)
    sampled = jax.jit(functools.partial(task.apply, MODEL, mutable=True))(
        state.variables, record, jax.random.key(0)
    )[0]
    assert not (sampled.proposals[..., 2:] > sizes[:, None, ::-1]).any()
    assert (sampled.proposals[..., 2:] > 0).any()
