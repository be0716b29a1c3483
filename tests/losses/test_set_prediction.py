"""Losses of set prediction: who is matched, what counts, and the same on any devices."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal

from segjax.losses import (
    detr_loss,
    mask2former_loss,
    maskformer_loss,
    match_queries,
    sample_masks,
    uncertain_points,
)
from segjax.ops import sample
from segjax.typing import Instances

IMAGES, QUERIES, OBJECTS = 8, 4, 3
SHAPE = (8, 6)


def _arrays(seed=0):
    """Logits of classes and masks, and objects of which every image has another number."""
    rng = np.random.default_rng(seed)
    targets = Instances(
        boxes=np.zeros((IMAGES, OBJECTS, 4), np.float32),
        classes=rng.integers(2, size=(IMAGES, OBJECTS), dtype=np.int32),
        valid=np.arange(OBJECTS) < (np.arange(IMAGES) % (OBJECTS + 1))[:, None],
        masks=rng.random((IMAGES, OBJECTS, *SHAPE)) < 0.4,
        crowd=np.zeros((IMAGES, OBJECTS), bool),
    )
    return (
        rng.normal(size=(IMAGES, QUERIES, 3)).astype(np.float32),
        rng.normal(size=(IMAGES, QUERIES, 4, 3)).astype(np.float32),
        targets,
    )


def _mask2former(arrays, **options):
    class_logits, mask_logits, targets = arrays
    keys = jax.random.split(jax.random.key(0), IMAGES)
    return mask2former_loss(keys, class_logits, mask_logits, targets, points=8, **options)


def _value(terms):
    return sum(term.value for term in terms.values())


@functools.cache
def _mask2former_gradients():
    """Compiled once for the tests below: value and gradients, void and fillers as arguments."""

    def objective(logits, targets, where, examples):
        terms = _mask2former((*logits, targets), where=where, examples=examples)
        return _value(terms), terms

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def _run(arrays, where=None, examples=None):
    class_logits, mask_logits, targets = arrays
    where = np.ones((IMAGES, *SHAPE), bool) if where is None else where
    examples = np.ones(IMAGES, bool) if examples is None else examples
    (_, terms), gradients = _mask2former_gradients()(
        (class_logits, mask_logits), targets, where, examples
    )
    return terms, gradients


def test_matching_is_global_not_greedy():
    """The cheapest pair is (0, 0), but with it the second object would be dear."""
    cost = jnp.array([[0.0, 1.0], [1.0, 9.0], [8.0, 8.0]])
    assert_array_equal(match_queries(cost, jnp.array([True, True])), [1, 0])


def test_the_best_of_the_queries_is_matched_where_objects_are_more():
    cost = jnp.array([[3.0, 1.0, 2.0]])
    assert_array_equal(match_queries(cost, jnp.array([True, True, True])), [-1, 0, -1])
    assert_array_equal(match_queries(cost, jnp.array([True, False, True])), [-1, -1, 0])


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_no_query_or_no_object(shape):
    query_of = match_queries(jnp.zeros(shape), jnp.ones(shape[1], bool))
    assert_array_equal(query_of, np.full(shape[1], -1))


@pytest.mark.parametrize("loss", [_mask2former, lambda arrays: maskformer_loss(*arrays)])
def test_tables_without_rows(loss):
    *logits, targets = _arrays()
    nothing = jax.tree.map(lambda x: x[:, :0], targets)
    terms = jax.eval_shape(loss, (*logits, nothing))
    assert terms.keys() == jax.eval_shape(loss, (*logits, targets)).keys()


def test_of_two_equal_queries_one_is_matched_and_they_part():
    """One-to-one: descent makes an object of the one, and "no object" of its duplicate."""
    targets = Instances(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([0]), jnp.array([True]))
    boxes = jnp.tile(jnp.array([[0.4, 0.5, 0.6, 0.5]]), (2, 1))

    @jax.jit
    def descend(logits):
        return logits - jax.grad(lambda x: _value(detr_loss(x, boxes, targets, (4, 4))))(logits)

    first = descend(jnp.zeros((2, 2)))
    matched = int(jnp.argmax(first[:, 0]))
    assert first[matched, 0] > 0 > first[1 - matched, 0]
    logits = functools.reduce(lambda x, _: descend(x), range(30), first)
    found = jax.nn.softmax(logits)[:, 0]
    assert found[matched] > 0.9
    assert found[1 - matched] < 0.5


def test_padding_crowds_and_fillers_are_not_targets():
    """Whatever they hold; and dropping them from the batch changes no term."""
    class_logits, mask_logits, targets = _arrays()
    examples = np.arange(IMAGES) != 3
    terms, gradients = _run((class_logits, mask_logits, targets), examples=examples)
    valid = targets.valid & examples[:, None]
    spoilt = dataclasses.replace(
        targets,
        classes=np.where(valid, targets.classes, 255).astype(np.int32),
        masks=np.where(valid[..., None, None], targets.masks, True),
        boxes=np.where(valid[..., None], targets.boxes, np.nan),
    )
    assert_array_equal(
        jax.tree.leaves(_run((class_logits, mask_logits, spoilt), examples=examples)[0]),
        jax.tree.leaves(terms),
    )
    assert_array_equal(gradients[0][3], 0)
    assert_array_equal(gradients[1][3], 0)
    crowd = np.zeros_like(targets.crowd)
    crowd[7, 0] = True
    as_crowd = dataclasses.replace(targets, crowd=crowd)
    as_padding = dataclasses.replace(targets, valid=targets.valid & ~crowd)
    results = [_run((class_logits, mask_logits, t))[0] for t in (as_crowd, as_padding)]
    assert_array_equal(*map(jax.tree.leaves, results))
    assert results[0]["dice"].weight == targets.valid.sum() - 1


def test_weights_depend_on_the_targets_alone():
    class_logits, mask_logits, targets = _arrays()
    terms, _ = _run((class_logits, mask_logits, targets))
    others, _ = _run((class_logits[::-1], -3 * mask_logits, targets))
    objects = targets.valid.sum()
    for name, term in terms.items():
        assert term.weight == others[name].weight
    assert terms["dice"].weight == terms["mask_cross_entropy"].weight == objects
    assert_allclose(
        terms["cross_entropy"].weight, objects + 0.1 * (IMAGES * QUERIES - objects), rtol=1e-6
    )


def test_an_image_without_objects_learns_that_there_are_none():
    class_logits, mask_logits, targets = _arrays()
    empty = dataclasses.replace(targets, valid=np.zeros_like(targets.valid))
    terms, (class_gradient, mask_gradient) = _run((class_logits, mask_logits, empty))
    expected = -jax.nn.log_softmax(class_logits)[..., -1].mean()
    assert_allclose(terms["cross_entropy"].value, 2 * expected, rtol=1e-5)
    assert terms["dice"].value == terms["mask_cross_entropy"].value == 0
    assert (class_gradient[..., -1] < 0).all()
    assert_array_equal(mask_gradient, 0)


def test_void_does_not_matter():
    """The left half is void: whatever the targets hold there, terms and gradients stay."""
    class_logits, mask_logits, targets = _arrays()
    where = np.broadcast_to(np.arange(SHAPE[1]) >= 3, (IMAGES, *SHAPE))
    spoilt = dataclasses.replace(targets, masks=targets.masks | ~where[:, None])
    results = [_run((class_logits, mask_logits, t), where=where) for t in (targets, spoilt)]
    for actual, desired in zip(*map(jax.tree.leaves, results), strict=True):
        assert_array_equal(actual, desired)
    nothing, gradients = _run((class_logits, mask_logits, targets), where=np.zeros_like(where))
    assert nothing["mask_cross_entropy"].value == 0
    assert_array_equal(gradients[1], 0)


@pytest.mark.slow
def test_pmap_and_mesh_are_one_device():
    """8 devices, an image each: the same terms and gradients, and no collective in a loop."""
    class_logits, mask_logits, targets = _arrays()
    logits, keys = (class_logits, mask_logits), jax.random.split(jax.random.key(0), IMAGES)

    def terms(logits, targets, keys):
        return mask2former_loss(keys, *logits, targets, points=8)

    def objective(logits, targets, keys, reduce=lambda tree: tree):
        weights = reduce({name: t.weight for name, t in terms(logits, targets, keys).items()})
        shares = {n: t.total / weights[n] for n, t in terms(logits, targets, keys).items()}
        return sum(shares.values()), shares

    def step(*arguments, **options):
        (_, shares), gradients = jax.value_and_grad(objective, has_aux=True)(*arguments, **options)
        return shares, gradients

    shares, gradients = jax.jit(step)(logits, targets, keys)

    add = functools.partial(jax.lax.psum, axis_name="data")
    each = jax.tree.map(lambda x: x[:, None], (logits, targets, keys))
    mapped = jax.pmap(functools.partial(step, reduce=add), axis_name="data")(*each)
    device_sums = {name: share.sum() for name, share in mapped[0].items()}
    for name, share in shares.items():
        assert_allclose(device_sums[name], share, rtol=1e-5)
    for actual, desired in zip(mapped[1], gradients, strict=True):
        assert_allclose(actual[:, 0], desired, atol=1e-6)

    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
    spread = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        arguments = jax.device_put((logits, targets, keys), spread)
        compiled = jax.jit(step).lower(*arguments).compile()
        on_mesh = compiled(*arguments)
    for actual, desired in zip(*map(jax.tree.leaves, (on_mesh, (shares, gradients))), strict=True):
        assert_allclose(actual, desired, rtol=1e-5, atol=1e-6)
    program = compiled.as_text()
    bodies = re.findall(r"body=%([\w.\-]+)", program)
    for body in bodies:
        text = re.search(rf"^%{re.escape(body)} .*?^}}", program, re.M | re.S)[0]
        assert not re.search(r"all-reduce|all-gather|all-to-all|collective", text)
    assert bodies


def test_nothing_calls_the_host():
    class_logits, mask_logits, targets = _arrays()
    program = jax.make_jaxpr(lambda *arrays: _value(_mask2former(arrays)))(
        class_logits, mask_logits, targets
    )
    assert "callback" not in str(program)


def test_masks_are_sampled_as_features_are():
    """`ops.sample` at the same points, in pixels; points outside the image too."""
    rng = np.random.default_rng(0)
    masks, points = rng.normal(size=(2, 3, *SHAPE)), rng.uniform(-0.2, 1.2, (40, 2))
    features = np.moveaxis(masks.reshape(6, *SHAPE), 0, -1).astype(np.float32)
    expected = sample(features, (points * SHAPE[::-1]).astype(np.float32)).T
    actual = sample_masks(jnp.float32(masks), jnp.float32(points))
    assert_allclose(actual.reshape(6, 40), expected, atol=1e-5)


def test_a_point_at_a_pixel_s_centre_has_the_slope_towards_the_next():
    masks, points = jnp.array([[1.0, 4.0, 9.0]]), jnp.array([[0.5, 0.5]])
    slope = jax.grad(lambda points: jnp.sum(sample_masks(masks, points)))(points)[0, 0]
    assert slope == 3 * (9 - 4)  # a pixel is a third of the image


@pytest.mark.parametrize("count", [0, 1, 7, 16, 20])
@pytest.mark.parametrize(
    "spread", [lambda x: x, lambda x: x**9, np.round, np.sign, lambda x: 0 * x, lambda x: 1e30 * x]
)
def test_the_least_certain_points_are_chosen(count, spread):
    """Those that sorting finds, and what is as uncertain as the last of them."""
    rng = np.random.default_rng(count)
    logits = spread(rng.normal(size=(5, 20)).astype(np.float32))
    distances = np.abs(logits)
    last = np.sort(distances)[:, count - 1 : count] if count else -1
    assert_array_equal(uncertain_points(logits, count), distances <= last)


def test_more_points_than_candidates():
    with pytest.raises(ValueError, match=r"count: expected .*got 3"):
        uncertain_points(jnp.zeros((2, 2)), 3)


@pytest.mark.slow
def test_chunks_of_objects_are_all_objects():
    """More objects than a CPU takes at a time, in any places of the table: a term each."""
    rng = np.random.default_rng(0)
    objects, queries = 11, 13
    valid = rng.random(objects) < 0.6
    masks = rng.random((objects, *SHAPE)) < 0.4
    logits = rng.normal(size=(queries, 3)), rng.normal(size=(queries, 4, 3))
    logits = jax.tree.map(jnp.float32, logits)

    def value(logits, chosen):
        classes, empty = jnp.zeros(len(chosen), jnp.int32), jnp.zeros((len(chosen), 4))
        targets = Instances(empty, classes, valid[chosen], masks=masks[chosen])
        return _value(mask2former_loss(jax.random.key(0), *logits, targets, points=8))

    every, compact = np.arange(objects), np.flatnonzero(valid)
    results = [jax.value_and_grad(value)(logits, chosen) for chosen in (every, compact)]
    for actual, desired in zip(*map(jax.tree.leaves, results), strict=True):
        assert_allclose(actual, desired, rtol=1e-5, atol=1e-7)


def test_targets_need_masks():
    class_logits, mask_logits, targets = _arrays()
    targets = dataclasses.replace(targets, masks=None)
    with pytest.raises(ValueError, match=r"targets.masks: expected"):
        maskformer_loss(class_logits, mask_logits, targets)
    with pytest.raises(ValueError, match=r"targets.masks: expected"):
        _mask2former((class_logits, mask_logits, targets))


def test_a_key_for_each_image():
    class_logits, mask_logits, targets = _arrays()
    with pytest.raises(ValueError, match=r"key: expected .*got \(\)"):
        mask2former_loss(jax.random.key(0), class_logits, mask_logits, targets)
