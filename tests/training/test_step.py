"""The training step: the same numbers on any devices and in any parts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal

from segjax.data import Augmentation
from segjax.models import SemanticOutput, unet
from segjax.tasks import SemanticTask
from segjax.training import create_state, make_eval_step, make_train_step
from segjax.training.parallel import Parallel, fetch, make_mesh
from segjax.typing import Record

TASK = SemanticTask(3)
SHAPE = (16, 16)
PARALLEL = {
    "pmap": lambda: Parallel(),
    "mesh 4x2": lambda: Parallel(make_mesh(fsdp=2)),
}


class Pixelwise(nn.Module):
    """Batch norm and a class for each colour: a model that compiles at once."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.BatchNorm(use_running_average=not train)(images)
        return SemanticOutput(nn.Dense(3)(x))


def _batch(examples=16, seed=0):
    """Images whose colours tell their classes; void spreads from no pixels to all of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (examples, 18, 20), np.int32)
    images = 0.3 * np.eye(3)[labels] + rng.uniform(0, 0.7, (examples, 18, 20, 3))
    void = np.linspace(0, 1, examples)[:, None, None] ** 3
    return Record(
        image=images.astype(np.float32),
        labels=labels,
        where=rng.random(labels.shape) >= void,
        size=np.tile(np.int32([18, 20]), (examples, 1)),
        index=np.arange(7, 7 + examples, dtype=np.int32),
        valid=np.arange(examples) != 3,
    )


def _augment(key, record):
    return Augmentation()(key, record, shape=SHAPE)


_prepare = jax.vmap(_augment)


def _state(model, optimizer, **options):
    images = jnp.zeros((1, *SHAPE, 3))
    create = functools.partial(create_state, model=model, optimizer=optimizer, **options)
    state = jax.jit(lambda key: create(key, images=images))(jax.random.key(0))
    return jax.tree.map(np.array, state)  # which can be written to


def _take(model, optimizer, state, batches, **options):
    """The states after each batch, and the metrics, on one device."""
    step = jax.jit(make_train_step(TASK, model, optimizer, **options))
    states, metrics = [], []
    for batch in batches:
        state, metric = step(state, batch)
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(metric))
    return states, metrics


def _assert_close(tree, expected, *, atol=1e-5):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for (path, value), (_, wanted) in zip(
        jax.tree.leaves_with_path(tree), jax.tree.leaves_with_path(expected), strict=True
    ):
        assert_allclose(value, wanted, rtol=1e-5, atol=atol, err_msg=jax.tree_util.keystr(path))


def _assert_same(tree, expected):
    jax.tree.map(assert_array_equal, tree, expected)


# One step of SGD at rate 1 moves each parameter by exactly its gradient.
SGD = optax.sgd(1.0)
UNET = unet(3, widths=(4, 8))
GROUPED = unet(3, widths=(4, 8), norm="group")


@pytest.fixture(scope="module")
def one_device():
    state = _state(UNET, SGD, average=True)
    (after,), (metrics,) = _take(UNET, SGD, state, [_batch()], prepare=_prepare, average_decay=0.9)
    return state, after, metrics


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARALLEL)
def test_eight_devices_take_the_step_that_one_does(kind, one_device):
    state, expected, expected_metrics = one_device
    assert expected_metrics["loss"] > 0.1
    moved = jax.tree.map(lambda a, b: (a != b).any(), expected.params, state.params)
    assert all(jax.tree.leaves(moved))

    parallel = PARALLEL[kind]()
    step = make_train_step(
        TASK,
        UNET,
        SGD,
        prepare=_prepare,
        average_decay=0.9,
        axis_name=parallel.axis_name,
    )
    placed = parallel.place(state)
    after, metrics = parallel.train_step(step, placed)(placed, _batch())
    # Parameters: all gradients. Model state: batch statistics. The average has both.
    _assert_close(fetch(vars(after)), vars(expected))
    _assert_close(fetch(metrics), expected_metrics)


def test_the_mean_of_the_devices_means_would_be_another_loss():
    """Else the comparison of devices with one device would show nothing."""
    batch = _batch()
    state = _state(Pixelwise(), SGD)
    step = jax.jit(make_train_step(TASK, Pixelwise(), SGD))
    whole = step(state, batch)[1]["loss"]
    halves = [step(state, jax.tree.map(lambda x, i=i: x[i::2], batch))[1]["loss"] for i in (0, 1)]
    eighths = [
        step(state, jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], batch))[1]["loss"]
        for i in range(8)
    ]
    assert abs(np.mean(eighths) - whole) > 1e-3
    assert abs(np.mean(halves) - whole) > 1e-5


@pytest.fixture(scope="module")
def whole():
    """One step on one device, of a model whose examples do not see each other."""
    state = _state(GROUPED, SGD)
    (after,), (metrics,) = _take(GROUPED, SGD, state, [_batch()], prepare=_prepare)
    return state, after, metrics


@pytest.mark.slow
def test_accumulating_parts_takes_the_step_of_the_whole(whole):
    state, expected, expected_metrics = whole
    (parts,), (metrics,) = _take(GROUPED, SGD, state, [_batch()], prepare=_prepare, accumulate=4)
    _assert_close(vars(parts), vars(expected))
    _assert_close(metrics, expected_metrics)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARALLEL)
def test_accumulating_parts_on_eight_devices(kind, whole):
    state, expected, _ = whole
    parallel = PARALLEL[kind]()
    step = make_train_step(
        TASK, GROUPED, SGD, prepare=_prepare, accumulate=2, axis_name=parallel.axis_name
    )
    placed = parallel.place(state)
    after, _ = parallel.train_step(step, placed)(placed, _batch())
    _assert_close(fetch(vars(after)), vars(expected))


def test_a_batch_that_does_not_divide_into_parts_is_refused():
    state = _state(Pixelwise(), SGD)
    with pytest.raises(ValueError, match=r"accumulate: expected a divisor of the 16 .*, got 3"):
        make_train_step(TASK, Pixelwise(), SGD, accumulate=3)(state, _batch())


def test_batches_that_do_not_divide_over_the_devices_are_refused():
    parallel = Parallel()
    step = parallel.eval_step(lambda state, batch: (state, batch))
    with pytest.raises(ValueError, match="expected a multiple of this host's 8 devices, got 12"):
        step(parallel.place(np.zeros(1)), _batch(12))


@pytest.mark.parametrize("fsdp", [0, 3, 16])
def test_a_mesh_that_the_devices_cannot_form_is_refused(fsdp):
    with pytest.raises(ValueError, match=f"fsdp: expected a divisor of the 8 devices, got {fsdp}"):
        make_mesh(fsdp=fsdp)


def test_fsdp_shards_the_longest_axis_that_divides():
    parallel = Parallel(make_mesh(fsdp=4))
    tree = {"kernel": np.zeros((3, 3, 4, 8)), "bias": np.zeros(8), "odd": np.zeros((3, 5))}
    shards = {k: x.addressable_shards[0].data.shape for k, x in parallel.place(tree).items()}
    assert shards == {"kernel": (3, 3, 4, 2), "bias": (2,), "odd": (3, 5)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pmap", "mesh 4x2"])
def test_evaluation_counts_the_same_pixels_on_any_devices(kind):
    batch = _batch()
    variables = _state(Pixelwise(), SGD).variables
    render = lambda record: record
    expected, probs = jax.jit(make_eval_step(TASK, Pixelwise(), render=render))(variables, batch)
    assert expected.confusion.counts.sum() == (batch.where & batch.valid[:, None, None]).sum()
    parallel = PARALLEL[kind]()
    step = make_eval_step(TASK, Pixelwise(), render=render, axis_name=parallel.axis_name)
    metric, predictions = parallel.eval_step(step)(parallel.place(variables), batch)
    jax.tree.map(assert_array_equal, metric, expected)
    for place in (0, 3, len(batch.valid) - 1):
        assert_allclose(parallel.example(predictions, place), probs[place], rtol=1e-6)


@pytest.mark.slow
def test_the_same_example_is_augmented_alike_wherever_it_stands_in_the_batch():
    model, batch = Pixelwise(), _batch()
    state = _state(model, SGD)
    turned = jax.tree.map(lambda x: x[::-1].copy(), batch)
    (a,), _ = _take(model, SGD, state, [batch], prepare=_prepare)
    (b,), _ = _take(model, SGD, state, [turned], prepare=_prepare)
    _assert_close(vars(a), vars(b))
    moved = batch.replace(index=batch.index + 1)
    (c,), _ = _take(model, SGD, state, [moved], prepare=_prepare)
    assert jnp.abs(c.params["Dense_0"]["kernel"] - a.params["Dense_0"]["kernel"]).max() > 1e-3


def test_the_moving_average_begins_as_the_plain_mean():
    state = _state(Pixelwise(), SGD, average=True)
    states, _ = _take(
        Pixelwise(), SGD, state, [_batch(seed=i) for i in range(3)], average_decay=0.99
    )
    variables = [{"params": s.params, **s.model_state} for s in states]
    mean = jax.tree.map(lambda *x: np.mean(x, 0), *variables)
    _assert_close(states[-1].average, mean)
    assert states[-1].variables is states[-1].average


def test_the_moving_average_decays():
    state = _state(Pixelwise(), SGD, average=True)
    states, _ = _take(
        Pixelwise(), SGD, state, [_batch(seed=i) for i in range(6)], average_decay=0.75
    )
    for before, after in itertools.pairwise(states[3:]):  # where 1 / (step + 1) < 1 - decay
        variables = {"params": after.params, **after.model_state}
        expected = jax.tree.map(lambda a, v: 0.75 * a + 0.25 * v, before.average, variables)
        _assert_close(after.average, expected)


def test_without_a_moving_average_the_variables_are_the_model_s():
    state = _state(Pixelwise(), SGD)
    assert state.average is None
    _assert_same(state.variables, {"params": state.params, **state.model_state})


@pytest.mark.parametrize("poisoned", ["image", "parameter"])
def test_after_a_nan_nothing_moves_any_more(poisoned):
    batch = _batch()
    state = _state(Pixelwise(), optax.adam(0.1), average=True)
    bad = batch
    if poisoned == "image":
        bad = batch.replace(image=batch.image.copy())
        bad.image[5, 2, 2, 0] = np.nan
    else:
        state.params["Dense_0"]["bias"][1] = np.inf
    states, metrics = _take(Pixelwise(), optax.adam(0.1), state, [bad, batch], average_decay=0.9)
    for after, metric in zip(states, metrics, strict=True):
        assert not metric["finite"]
        _assert_same(vars(after), vars(state) | {"finite": np.bool_(False)})


def test_a_finite_step_counts():
    state = _state(Pixelwise(), SGD)
    states, metrics = _take(Pixelwise(), SGD, state, [_batch(), _batch()])
    assert [int(s.step) for s in states] == [1, 2]
    assert all(m["finite"] for m in metrics)


@pytest.mark.parametrize("nothing", ["where", "valid"])
def test_a_batch_of_nothing_but_void_teaches_nothing(nothing):
    batch = _batch()
    batch = batch.replace(**{nothing: np.zeros_like(getattr(batch, nothing))})
    state = _state(Pixelwise(), SGD)
    (after,), (metrics,) = _take(Pixelwise(), SGD, state, [batch])
    assert metrics["finite"]
    assert metrics["loss"] == metrics["gradient_norm"] == 0
    _assert_same(after.params, state.params)


def test_the_loss_is_the_sum_of_its_terms():
    _, (metrics,) = _take(Pixelwise(), SGD, _state(Pixelwise(), SGD), [_batch()])
    assert_allclose(metrics["loss"], metrics["cross_entropy"] + metrics["dice"], rtol=1e-6)


def test_steps_teach():
    optimizer = optax.adam(0.1)
    batch = _batch()
    _, metrics = _take(Pixelwise(), optimizer, _state(Pixelwise(), optimizer), [batch] * 20)
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]
