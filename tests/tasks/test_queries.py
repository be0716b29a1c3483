"""Tasks of query models: what they learn from, that devices agree, and what is judged."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal

from segjax.data import Classes
from segjax.models import Detr, QueryOutput, SemanticOutput
from segjax.objectives import DetrObjective, Mask2FormerObjective, MaskFormerObjective
from segjax.tasks import InstanceTask, PanopticTask
from segjax.training import PanopticConfig, create_state, make_eval_step, make_train_step
from segjax.training.build import make_task
from segjax.training.parallel import Parallel, fetch, make_mesh
from segjax.typing import Instances, Panoptic, Record

THINGS = (False, True)  # ground, and blobs
CLASSES = Classes(("ground", "blob"), ((90, 90, 90), (200, 0, 0)), THINGS)
QUERIES = 5
SETS = DetrObjective()
PARALLEL = {"pmap": lambda: Parallel(), "mesh 4x2": lambda: Parallel(make_mesh(fsdp=2))}


class Queries(nn.Module):
    """Each query a mask by colour, a class and a box by the mean colour: compiles at once."""

    boxes: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False):
        masks = jnp.moveaxis(nn.Dense(QUERIES)(images), -1, -3)[..., ::2, ::2]
        mean = images.mean((-3, -2))
        logits = nn.Dense(QUERIES * 3)(mean).reshape(-1, QUERIES, 3)
        boxes = nn.sigmoid(nn.Dense(QUERIES * 4)(mean).reshape(-1, QUERIES, 4))
        output = QueryOutput(logits, boxes if self.boxes else None, masks)
        earlier = dataclasses.replace(output, class_logits=0.5 * logits)
        return dataclasses.replace(output, auxiliary=(earlier, earlier))


class Means(nn.Module):
    """Means of colours, as a `ResNet` gives features, but each of its own 8×8 pixels alone."""

    output_stride: int
    frozen_norm: bool
    remat: bool
    axis_name: str | None
    dtype: Any
    param_dtype: Any

    def __call__(self, images, train=False):
        return {"stage4": nn.avg_pool(images, (8, 8), (8, 8))}


def _batch(examples=16):
    """Up to three squares on a ground; one example fills up, one has no object, one is a crowd."""
    rng = np.random.default_rng(0)
    segments = np.zeros((examples, 12, 16), np.int32)
    valid = np.zeros((examples, 4), bool)
    valid[:, 0] = True
    for i in range(examples):
        for k in range(1, 1 + i % 4):
            top, left = rng.integers(0, 8), rng.integers(0, 12)
            segments[i, top : top + 4, left : left + 4] = k
        valid[i] = np.isin(np.arange(4), segments[i])
    segments[2, :2] = -1
    classes = np.broadcast_to(np.int32([0, 1, 1, 1]), valid.shape)
    crowd = np.zeros_like(valid)
    crowd[5, 1] = True
    noise = rng.uniform(0, 0.4, (*segments.shape, 3))
    image = (noise + 0.6 * (segments[..., None] > 0)).astype(np.float32)
    return Record(
        image=image,
        where=segments >= 0,
        size=np.tile(np.int32([12, 16]), (examples, 1)),
        panoptic=Panoptic(segments, classes, valid, crowd),
        index=np.arange(7, 7 + examples, dtype=np.int32),
        valid=np.arange(examples) != 3,
    )


def _step(task, model, parallel=None):
    """The state after one step of SGD at rate 1, and the metrics."""
    optimizer = optax.sgd(1.0)
    create = functools.partial(create_state, model=model, optimizer=optimizer)
    init = jax.jit(lambda key: create(key, images=jnp.zeros((1, 12, 16, 3))))
    state = jax.tree.map(np.array, init(jax.random.key(0)))
    if parallel is None:
        return jax.device_get(jax.jit(make_train_step(task, model, optimizer))(state, _batch()))
    step = make_train_step(task, model, optimizer, axis_name=parallel.axis_name)
    placed = parallel.place(state)
    return fetch(parallel.train_step(step, placed)(placed, _batch()))


POINTS = InstanceTask(2, Mask2FormerObjective(points=64), things=THINGS, max_objects=4)


@pytest.fixture(scope="module")
def one_device():
    return _step(POINTS, Queries())


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARALLEL)
def test_eight_devices_take_the_step_that_one_does(kind, one_device):
    """Random points too are those of the example, wherever it is."""
    (state, metrics), (expected, due) = _step(POINTS, Queries(), PARALLEL[kind]()), one_device
    jax.tree.map(
        lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (state.params, metrics),
        (expected.params, due),
    )


def test_each_objective_has_its_terms(one_device):
    _, metrics = one_device
    assert {"cross_entropy", "mask_cross_entropy", "dice", "auxiliary/dice"} <= metrics.keys()

    def losses(objective, **options):
        task = PanopticTask(2, objective, things=THINGS)
        outputs = Queries(**options).init_with_output(jax.random.key(0), _batch().image)[0]
        return task.losses(outputs, _batch(), jax.random.key(1))

    assert {"cross_entropy", "focal", "dice"} < jax.eval_shape(
        lambda: losses(MaskFormerObjective())
    ).keys()
    with_boxes = jax.eval_shape(lambda: losses(DetrObjective(), boxes=True))
    assert {"cross_entropy", "l1", "giou", "focal", "dice"} < with_boxes.keys()
    # Segments of things and stuff, less the crowd and the example that fills up.
    counted = _batch().panoptic.valid & ~_batch().panoptic.crowd & _batch().valid[:, None]
    assert jax.jit(lambda: losses(MaskFormerObjective())["dice"].weight)() == counted.sum()


@pytest.mark.slow
def test_earlier_layers_count_together():
    task = PanopticTask(2, MaskFormerObjective(auxiliary=0.5), things=THINGS)
    outputs = Queries().init_with_output(jax.random.key(0), _batch().image)[0]
    terms = task.losses(outputs, _batch(), jax.random.key(1))
    alone = task.losses(outputs.auxiliary[0], _batch(), jax.random.key(1))
    for name, term in alone.items():
        assert_allclose(terms[f"auxiliary/{name}"].value, 2 * 0.5 * term.value, rtol=1e-5)


def _targets_as_logits(panoptic):
    """A model's outputs that say what the labels say; "no object" where there is none."""
    rows = np.arange(panoptic.valid.shape[-1])
    masks = np.where(panoptic.segments[:, None] == rows[:, None, None], 9.0, -9.0)
    classes = np.where(panoptic.valid, panoptic.classes, 2)
    return QueryOutput(
        jnp.asarray(9.0 * np.eye(3, dtype=np.float32)[classes]),
        mask_logits=jnp.asarray(masks, np.float32),
    )


class Knows(nn.Module):
    """Predicts what the labels say, of whichever image."""

    outputs: QueryOutput | SemanticOutput

    def __call__(self, images, train=False):
        return self.outputs


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARALLEL)
def test_what_the_labels_say_is_perfect_on_any_devices(kind):
    batch = _batch()
    batch = batch.replace(panoptic=dataclasses.replace(batch.panoptic, crowd=None))
    model, parallel = Knows(_targets_as_logits(batch.panoptic)), PARALLEL[kind]()

    def scores(task):
        render = lambda record: record
        alone, _ = jax.jit(make_eval_step(task, model, render=render))({}, batch)
        if parallel.axis_name is None:  # under pmap a device sees its share of the outputs alone
            step = parallel.eval_step(make_eval_step(task, model, render=render))
            spread = jax.device_get(step({}, batch)[0])
            jax.tree.map(assert_array_equal, spread, alone)
        return task.summary(jax.device_get(alone), CLASSES)

    panoptic = scores(PanopticTask(2, Mask2FormerObjective(), things=THINGS))
    assert panoptic["pq"] == panoptic["pq_things"] == panoptic["pq_stuff"] == 1
    assert panoptic["rq/blob"] == 1
    instance = scores(InstanceTask(2, DetrObjective(), things=THINGS))
    assert instance["ap"] == pytest.approx(1)
    assert "ap/ground" not in instance


def test_labels_alone_are_segments_of_stuff():
    labels = np.int32([[[0, 0, 1], [0, 2, 1]]])
    record = Record(image=np.zeros((1, 2, 3, 3), "f"), labels=labels, where=labels != 2)
    targets = PanopticTask(3, Mask2FormerObjective(), max_objects=2).targets(record)
    assert_array_equal(targets.classes, [[0, 1]])
    assert_array_equal(targets.masks[0], [labels[0] == 0, labels[0] == 1])


def test_instances_are_taken_before_segments():
    masks = np.ones((1, 1, 12, 16), bool)
    given = Instances(
        np.float32([[[0, 0, 16, 12]]]),
        np.ones((1, 1), np.int32),
        np.ones((1, 1), bool),
        masks=masks,
    )
    record = jax.tree.map(lambda x: x[:1], _batch()).replace(instances=given)
    assert InstanceTask(2, DetrObjective(), things=THINGS).targets(record) is given


def test_the_largest_objects_are_learnt():
    boxes = np.float32([[[0, 0, 1, 1], [0, 0, 4, 4], [0, 0, 9, 9], [0, 0, 2, 3]]])
    given = Instances(
        boxes,
        np.arange(4, dtype=np.int32)[None],
        np.array([[True, True, False, True]]),
        masks=np.arange(4)[None, :, None, None] == np.ones((1, 4, 2, 2)),
    )
    task = InstanceTask(4, Mask2FormerObjective(), max_objects=2)
    targets = task.targets(Record(image=np.zeros((1, 2, 2, 3), "f"), instances=given))
    assert_array_equal(targets.classes, [[1, 3]])
    assert_array_equal(targets.masks, given.masks[:, [1, 3]])


def test_masks_of_the_last_layer_alone():
    """So it is in DETR, with its authors' mask head."""
    outputs = Queries(boxes=True).init_with_output(jax.random.key(0), _batch().image)[0]
    without = [dataclasses.replace(layer, mask_logits=None) for layer in outputs.auxiliary]
    task = InstanceTask(2, DetrObjective(), things=THINGS)
    terms, due = (
        jax.eval_shape(task.losses, x, _batch(), jax.random.key(1))
        for x in (dataclasses.replace(outputs, auxiliary=tuple(without)), outputs)
    )
    assert due.keys() - terms.keys() == {"auxiliary/focal", "auxiliary/dice"}


@pytest.mark.parametrize(
    "task", [InstanceTask(2, DetrObjective()), PanopticTask(2, Mask2FormerObjective())]
)
def test_data_without_what_is_learnt_is_an_error(task):
    record = Record(image=np.zeros((1, 2, 2, 3), "f"))
    with pytest.raises(ValueError, match=r"^data: expected .* segments .*, got\s+neither"):
        task.targets(record)


def test_a_model_without_what_is_asked_for_is_an_error():
    image = np.zeros((1, 12, 16, 3), np.float32)
    pixels = SemanticOutput(jnp.zeros((1, 12, 16, 2)))
    with pytest.raises(ValueError, match=r"for panoptic .* returns a SemanticOutput"):
        PanopticTask(2, Mask2FormerObjective()).predict(Knows(pixels), {}, image)
    boxes_alone = QueryOutput(jnp.zeros((1, 2, 3)), boxes=jnp.zeros((1, 2, 4)))
    with pytest.raises(ValueError, match="returns a QueryOutput without masks"):
        PanopticTask(2, Mask2FormerObjective()).predict(Knows(boxes_alone), {}, image)


def test_boxes_are_judged_where_there_are_no_masks():
    """As good as the best where they are those of the objects, by COCO's average precision."""
    batch = jax.tree.map(lambda x: x[1:3], _batch())
    batch = batch.replace(panoptic=dataclasses.replace(batch.panoptic, crowd=None))
    task = InstanceTask(2, DetrObjective(), things=THINGS)
    targets = task.targets(batch)
    left, top, right, bottom = np.moveaxis(targets.boxes / np.float32([16, 12, 16, 12]), -1, 0)
    boxes = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], -1)
    classes = np.where(targets.valid, targets.classes, 2)
    logits = jnp.asarray(9 * np.eye(3, dtype=np.float32)[classes])
    model = Knows(QueryOutput(logits, boxes=jnp.asarray(boxes)))
    metric = task.measure(task.predict(model, {}, batch.image), batch)
    assert task.summary(metric, CLASSES)["ap"] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_a_canvas_has_beyond_the_picture_is_not_seen(scale):
    """DETR finds the same in a picture as in a canvas that noise fills up."""
    model = Detr(
        2,
        Means,
        num_queries=3,
        features=16,
        hidden_features=16,
        num_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        dropout=0.0,
    )
    sizes = np.int32([[32, 64], [48, 32]])
    canvas = np.random.default_rng(0).uniform(size=(2, 64, 80, 3)).astype(np.float32)
    for image, (height, width) in zip(canvas, sizes, strict=True):
        # A border of one colour, lest shrinking the canvas mix noise into the picture.
        image[height - 8 : height + 8] = image[:, width - 8 : width + 8] = 0.5
    variables = jax.jit(model.init)(jax.random.key(0), canvas)
    task = InstanceTask.for_model("detr_tiny", 2, scale=scale)
    record = Record(image=canvas, size=sizes)
    learning = task.apply(model, variables, record, jax.random.key(1))
    found = task.predict(model, variables, canvas, sizes)
    for i, (height, width) in enumerate(sizes):
        alone = canvas[i : i + 1, :height, :width]
        expected = task.predict(model, variables, alone)
        assert_allclose(found.boxes[i], expected.boxes[0], atol=1e-3)
        assert_allclose(found.scores[i], expected.scores[0], atol=1e-5)
        outputs = task.apply(model, variables, Record(image=alone), jax.random.key(1))
        assert_allclose(learning.boxes[i], outputs.boxes[0], atol=1e-5)
    blind = task.predict(model, variables, canvas)
    assert not np.allclose(found.scores, blind.scores, atol=1e-3)


def test_boxes_are_learnt_as_fractions_of_the_picture():
    """A model that knows them has no loss of boxes, however large the canvas."""
    batch = jax.tree.map(lambda x: x[1:3], _batch()).replace(size=np.int32([[12, 12], [12, 16]]))
    task = InstanceTask(2, DetrObjective(), things=THINGS)
    targets = task.targets(batch)
    sides = batch.size[:, None, [1, 0, 1, 0]]
    left, top, right, bottom = np.moveaxis(targets.boxes / sides, -1, 0)
    boxes = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], -1)
    classes = np.where(targets.valid, targets.classes, 2)
    outputs = QueryOutput(jnp.asarray(9 * np.eye(3, dtype="f")[classes]), boxes=jnp.asarray(boxes))
    terms = task.losses(outputs, batch, jax.random.key(0))
    assert terms["l1"].weight > 0
    assert_allclose(terms["l1"].total, 0, atol=1e-5)
    assert_allclose(terms["giou"].total, 0, atol=1e-5)


@pytest.mark.parametrize(
    "task",
    [
        InstanceTask(2, DetrObjective()),
        PanopticTask(
            2, Mask2FormerObjective(), things=THINGS, score_threshold=0.2, overlap_threshold=0.7
        ),
    ],
    ids=["instance", "panoptic"],
)
def test_nothing_beyond_the_picture_counts_for_a_mask(task):
    """What is found is what is found in the masks cut to it, scores and all."""
    logits = jnp.log(jnp.array([[[0.0, 0.9, 0.1], [0.0, 0.5, 0.5]]]))
    # The first has low probabilities beyond, where it wins most of the second.
    first, second = np.float32([9, 9, -9, -9, 0.1, 0.1]), np.float32([-9, -9, 9, 9, 0.2, 0.2])
    masks = np.stack([first, second])[None, :, None] * np.ones((3, 1), np.float32)
    images = np.zeros((1, 3, 6, 3), np.float32)
    found, alone = (
        task.predict(Knows(QueryOutput(logits, mask_logits=jnp.asarray(x))), {}, image, sizes)
        for x, image, sizes in (
            (masks, images, np.int32([[3, 4]])),
            (masks[..., :4], images[:, :, :4], None),
        )
    )
    assert_array_equal(found.valid, alone.valid)
    assert_allclose(found.scores, alone.scores, rtol=1e-6)
    pixels = "masks" if isinstance(task, InstanceTask) else "segments"
    found, alone = getattr(found, pixels), getattr(alone, pixels)
    assert_array_equal(found[..., :4], alone)
    assert (found[..., 4:] <= 0).all()
    assert (alone > 0).any()


@pytest.mark.parametrize(("threshold", "found"), [(0.5, 1), (0.9, 0)])
def test_a_configuration_says_how_sure_a_segment_must_be(threshold, found):
    logits = jnp.log(jnp.array([[[0.2, 0.7, 0.1]]]))
    model = Knows(QueryOutput(logits, mask_logits=jnp.full((1, 1, 3, 4), 9.0)))
    config = PanopticConfig(score_threshold=threshold)
    segments = make_task(config, CLASSES).predict(model, {}, np.zeros((1, 12, 16, 3), np.float32))
    assert segments.valid.sum() == found


@pytest.mark.parametrize(("threshold", "found"), [(0.2, 2), (0.8, 1)])
def test_a_configuration_says_how_much_of_its_mask_a_segment_must_win(threshold, found):
    """The second query has the left half, in which the first one wins all but a quarter."""
    logits = jnp.log(jnp.array([[[0.0, 0.9, 0.1], [0.0, 0.85, 0.15]]]))
    first = np.tile(np.float32([9, 9, -9, 9]), (3, 2))
    second = np.repeat(np.float32([9, -9]), 4) * np.ones((3, 1), np.float32)
    model = Knows(QueryOutput(logits, mask_logits=jnp.asarray(np.stack([first, second])[None])))
    config = PanopticConfig(overlap_threshold=threshold)
    segments = make_task(config, CLASSES).predict(model, {}, np.zeros((1, 3, 8, 3), np.float32))
    assert segments.valid.sum() == found
