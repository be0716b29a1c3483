"""The semantic task: its objective by hand, what it must not see, and what it predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal

from segjax import ops
from segjax.data import Classes
from segjax.losses import lovasz_softmax_loss
from segjax.metrics import ConfusionMatrix, LabelBoundaries
from segjax.models import SemanticOutput
from segjax.numerics import Average
from segjax.objectives import PixelObjective
from segjax.tasks import SemanticMetric, SemanticTask
from segjax.typing import Record

CLASSES = 3
TASK = SemanticTask(CLASSES)
OBJECTIVES = pytest.mark.parametrize(
    "loss",
    [
        PixelObjective(),
        PixelObjective(class_weights=(1.0, 2.0, 3.0)),
        PixelObjective(lovasz=1.0, focal_gamma=2.0),
    ],
    ids=["default", "class weights", "Lovász and focal"],
)


def _logits(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _record(shape=(4, 6), batch=2, seed=0, **fields):
    labels = np.random.default_rng(seed).integers(0, CLASSES, (batch, *shape), np.int32)
    return Record(labels=labels, **fields)


def _loss(task, logits, record, *, auxiliary=()):
    terms = task.losses(SemanticOutput(logits, auxiliary), record)
    return sum(term.value for term in terms.values())


def _log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _cross_entropies(logits, labels):
    return -np.take_along_axis(_log_softmax(logits), labels[..., None], -1)[..., 0]


def test_cross_entropy_is_the_mean_over_the_pixels_that_count():
    where = np.random.default_rng(1).random((2, 4, 6)) < 0.5
    logits, record = _logits(2, 4, 6, CLASSES), _record(where=where)
    term = TASK.losses(SemanticOutput(logits), record)["cross_entropy"]
    assert_allclose(term.value, _cross_entropies(logits, record.labels)[where].mean(), rtol=1e-5)
    assert term.weight == where.sum()


@pytest.mark.parametrize("label", [-1, CLASSES, 255])
def test_labels_of_no_class_are_void(label):
    """They have neither loss nor weight, and no class of them is present."""
    void = np.zeros((2, 4, 6), bool)
    void[:, :2] = True
    record = _record()
    spoilt = record.replace(labels=np.where(void, label, record.labels))
    task = SemanticTask(CLASSES, PixelObjective(class_weights=(1.0, 2.0, 3.0), lovasz=1.0))
    terms, expected = (
        task.losses(SemanticOutput(_logits(2, 4, 6, CLASSES)), r)
        for r in (spoilt, record.replace(where=~void))
    )
    jax.tree.map(assert_array_equal, terms, expected)


def test_dice_is_the_mean_over_the_classes_present_in_each_image():
    record = _record()
    record = record.replace(labels=np.where(np.arange(2)[:, None, None] == 0, 1, record.labels))
    logits = _logits(2, 4, 6, CLASSES)
    probs = np.exp(_log_softmax(logits))
    expected = []
    for image in range(2):
        for label in np.unique(record.labels[image]):
            p, y = probs[image, ..., label], record.labels[image] == label
            expected.append(1 - 2 * (p * y).sum() / (p.sum() + y.sum()))
    term = TASK.losses(SemanticOutput(logits), record)["dice"]
    assert term.weight == len(expected) == 1 + CLASSES
    assert_allclose(term.value, np.mean(expected), rtol=1e-5)


def test_class_weights_make_it_the_weighted_mean():
    weights = np.array([1.0, 0.0, 5.0])
    task = SemanticTask(CLASSES, objective=PixelObjective(dice=0.0, class_weights=tuple(weights)))
    logits, record = _logits(2, 4, 6, CLASSES), _record()
    values = _cross_entropies(logits, record.labels)
    expected = np.average(values, weights=weights[record.labels])
    assert_allclose(_loss(task, logits, record), expected, rtol=1e-5)


def test_label_smoothing_mixes_in_all_classes():
    task = SemanticTask(CLASSES, objective=PixelObjective(dice=0.0, label_smoothing=0.3))
    logits, record = _logits(2, 4, 6, CLASSES), _record()
    uniform = -_log_softmax(logits).mean(-1)
    expected = 0.7 * _cross_entropies(logits, record.labels) + 0.3 * uniform
    assert_allclose(_loss(task, logits, record), expected.mean(), rtol=1e-5)


def test_focal_gamma_takes_the_place_of_the_cross_entropy():
    logits, record = _logits(2, 4, 6, CLASSES), _record()
    weights = np.array([1.0, 0.5, 5.0])
    loss = PixelObjective(dice=0.0, focal_gamma=2.0, class_weights=tuple(weights))
    values = _cross_entropies(logits, record.labels)
    focal = values * (1 - np.exp(-values)) ** 2
    expected = np.average(focal, weights=weights[record.labels])
    assert_allclose(
        _loss(SemanticTask(CLASSES, objective=loss), logits, record), expected, rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"label_smoothing: expected 0 .*, got 0\.1"):
        PixelObjective(focal_gamma=2.0, label_smoothing=0.1)


def test_lovasz_is_the_mean_over_images_also_where_devices_share_them():
    """Under a sharded `jit`, as a mesh step runs it: the same value and gradient."""
    task = SemanticTask(CLASSES, objective=PixelObjective(cross_entropy=0.0, dice=0.0, lovasz=2.0))
    logits, record = _logits(4, 4, 6, CLASSES), _record(batch=4)
    expected = 2 * np.mean(
        [
            lovasz_softmax_loss(jax.nn.softmax(x), y)
            for x, y in zip(logits, record.labels, strict=True)
        ]
    )
    step = jax.jit(jax.value_and_grad(lambda x, y: _loss(task, x, Record(labels=y))))
    value, gradient = step(logits, record.labels)
    assert_allclose(value, expected, rtol=1e-5)
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    shared = step(*jax.device_put((logits, record.labels), sharding))
    assert_allclose(shared[0], value, rtol=1e-6)
    assert_allclose(shared[1], gradient, atol=1e-7)


@pytest.mark.parametrize("name", ["cross_entropy", "dice"])
def test_a_term_of_weight_0_is_left_out_and_the_others_scale(name):
    logits, record = _logits(2, 4, 6, CLASSES), _record()
    whole = TASK.losses(SemanticOutput(logits), record)
    options = {"cross_entropy": 0.0, "dice": 0.0} | {name: 3.0}
    terms = SemanticTask(CLASSES, objective=PixelObjective(**options)).losses(
        SemanticOutput(logits), record
    )
    assert set(terms) == {name}
    assert_allclose(terms[name].value, 3 * whole[name].value, rtol=1e-6)
    assert terms[name].weight == whole[name].weight


def test_auxiliary_heads_count_half_as_much_each_at_the_labels_size():
    record = _record((8, 8))
    main, half = _logits(2, 8, 8, CLASSES), _logits(2, 8, 8, CLASSES, seed=1)
    constant = jnp.broadcast_to(_logits(2, 1, 1, CLASSES, seed=2), (2, 2, 3, CLASSES))
    task = SemanticTask(CLASSES, objective=PixelObjective(auxiliary=0.4))
    first, second = (
        _loss(task, logits, record)
        for logits in (half, jnp.broadcast_to(constant[:, :1, :1], (2, 8, 8, CLASSES)))
    )
    expected = _loss(task, main, record) + 0.4 * first + 0.2 * second
    got = _loss(task, main, record, auxiliary=(half, constant))
    assert_allclose(got, expected, rtol=1e-5)


@OBJECTIVES
def test_logits_of_a_fraction_of_the_size_are_resized_to_the_labels(loss):
    """And so are their gradients; devices of a mesh, each with its images, find the same."""
    task = SemanticTask(CLASSES, objective=loss)
    where = np.random.default_rng(1).random((4, 8, 6)) < 0.8
    record, logits = _record((8, 6), batch=4, where=where), _logits(4, 3, 2, CLASSES)

    def coarse(x, record):
        return _loss(task, x, record)

    def resized(x, record):
        return _loss(task, ops.resize(x, (8, 6)), record)

    ours, expected = (jax.jit(jax.value_and_grad(f)) for f in (coarse, resized))
    value, gradient = expected(logits, record)
    assert_allclose(ours(logits, record)[0], value, rtol=1e-5)
    assert_allclose(ours(logits, record)[1], gradient, atol=1e-6)
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        shared = ours(*jax.device_put((logits, record), sharding))
    assert_allclose(shared[0], value, rtol=1e-5)
    assert_allclose(shared[1], gradient, atol=1e-6)


@OBJECTIVES
def test_void_pixels_change_nothing_and_have_no_gradient(loss):
    task = SemanticTask(CLASSES, objective=loss)
    where = np.random.default_rng(1).random((2, 4, 6)) < 0.5
    record = _record(where=where)
    logits = _logits(2, 4, 6, CLASSES)
    poisoned = jnp.where(where[..., None], logits, jnp.nan)
    other = record.replace(labels=np.where(where, record.labels, 255))
    assert _loss(task, poisoned, other) == _loss(task, logits, record)

    gradient = jax.grad(lambda x: _loss(task, x, record))
    assert_array_equal(gradient(poisoned), gradient(logits))
    assert_array_equal(gradient(logits)[~where], 0)
    assert (gradient(logits)[where] != 0).any()


def test_examples_that_fill_up_a_batch_change_nothing_and_have_no_gradient():
    logits, record = _logits(2, 4, 6, CLASSES), _record()
    filled = record.replace(valid=np.array([True, False]))
    alone = jax.tree.map(lambda x: x[:1], record)
    assert_allclose(_loss(TASK, logits, filled), _loss(TASK, logits[:1], alone), rtol=1e-6)
    gradient = jax.grad(lambda x: _loss(TASK, x, filled))(logits)
    assert_array_equal(gradient[1], 0)
    jax.tree.map(assert_array_equal, TASK.measure(logits, filled), TASK.measure(logits[:1], alone))


def test_nothing_to_learn_from_is_loss_0_weight_0_gradient_0():
    record = _record(where=np.zeros((2, 4, 6), bool))
    logits = _logits(2, 4, 6, CLASSES)
    terms = TASK.losses(SemanticOutput(logits), record)
    assert all(term.weight == 0 and term.value == 0 for term in terms.values())
    assert_array_equal(jax.grad(lambda x: _loss(TASK, x, record))(logits), 0)


@OBJECTIVES
def test_weights_depend_on_the_labels_alone(loss):
    task = SemanticTask(CLASSES, objective=loss)
    record = _record(where=np.random.default_rng(1).random((2, 4, 6)) < 0.5)
    weights = lambda logits: {
        name: float(term.weight)
        for name, term in task.losses(SemanticOutput(logits, (logits,)), record).items()
    }
    assert weights(_logits(2, 4, 6, CLASSES)) == weights(jnp.zeros((2, 4, 6, CLASSES)))


def test_totals_and_weights_of_parts_add_up_to_the_whole():
    where = np.random.default_rng(1).random((4, 4, 6)) < np.array([1, 0.1, 0, 0.7])[:, None, None]
    logits, record = _logits(4, 4, 6, CLASSES), _record(batch=4, where=where)
    whole = TASK.losses(SemanticOutput(logits), record)
    parts = [
        TASK.losses(SemanticOutput(logits[part]), jax.tree.map(lambda x, p=part: x[p], record))
        for part in (slice(0, 1), slice(1, 4))
    ]
    for name, term in whole.items():
        total = sum((part[name] for part in parts), Average(jnp.zeros(()), jnp.zeros(())))
        assert_allclose(total.value, term.value, rtol=1e-5)


def test_bfloat16_logits_sum_in_float32():
    logits, record = _logits(2, 64, 64, CLASSES), _record((64, 64))
    terms = TASK.losses(SemanticOutput(logits.astype(jnp.bfloat16)), record)
    exact = TASK.losses(SemanticOutput(logits), record)
    for name, term in terms.items():
        assert term.total.dtype == jnp.float32
        assert_allclose(term.value, exact[name].value, rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_inputs_are_centred_and_scaled_by_channel(dtype):
    task = SemanticTask(CLASSES, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    white = np.full((1, 2, 2, 3), 255 if dtype == np.uint8 else 1, dtype)
    assert_allclose(task.inputs(white)[0, 0, 0], [1.0, 1.0, 0.0], atol=1e-6)


class _Colour(nn.Module):
    """Knows a class by its colour, and asserts the size at which it sees the image."""

    sees: tuple[int, int]

    def __call__(self, images, train=False):
        assert images.shape[-3:-1] == self.sees
        return SemanticOutput(20 * images)


@pytest.mark.parametrize(("scale", "sees"), [(1.0, (9, 14)), (0.5, (4, 7)), (2.0, (18, 28))])
def test_predictions_have_the_size_of_the_images_at_any_scale(scale, sees):
    labels = np.repeat(np.array([0, 2], np.int32), 7) * np.ones((2, 9, 1), np.int32)
    images = np.eye(CLASSES, dtype=np.float32)[labels]
    probs = SemanticTask(CLASSES, scale=scale).predict(_Colour(sees), {}, images)
    assert probs.shape == (2, 9, 14, CLASSES)
    assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    assert_array_equal(probs.argmax(-1), labels)


def test_a_scale_leaves_at_least_one_pixel():
    probs = SemanticTask(CLASSES, scale=0.1).predict(
        _Colour((1, 1)), {}, np.zeros((1, 3, 2, 3), "f")
    )
    assert probs.shape == (1, 3, 2, CLASSES)


def test_confusion_counts_what_counts():
    where = np.random.default_rng(1).random((2, 4, 6)) < 0.5
    record = _record(where=where, valid=np.array([True, False]))
    probs = jax.nn.softmax(_logits(2, 4, 6, CLASSES))
    expected = np.zeros((CLASSES, CLASSES), int)
    for label, prediction in zip(
        record.labels[0][where[0]], np.asarray(probs[0].argmax(-1))[where[0]], strict=True
    ):
        expected[label, prediction] += 1
    assert_array_equal(TASK.measure(probs, record).confusion.counts, expected)


def _classes(*names):
    return Classes(names, ((0, 0, 0),) * len(names))


def test_summary_of_a_matrix_made_by_hand():
    # Truth: 4 of a, 3 of b, none of c and d; one a was taken for c.
    matrix = np.array([[3, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    # Of the borders: all of a's and half of b's is found, and c has one that is not there.
    borders = LabelBoundaries(
        *np.array([[4, 2, 0, 0], [4, 4, 0, 0], [4, 2, 1, 0]])  # both, labelled, predicted
    )
    metric = SemanticMetric(ConfusionMatrix(matrix), borders)
    scores = SemanticTask(4).summary(metric, _classes("a", "b", "c", "d"))
    assert scores == pytest.approx(
        {
            "iou/a": 3 / 4,
            "iou/b": 1.0,
            "iou/c": 0.0,
            "boundary_iou/a": 1.0,
            "boundary_iou/b": 0.5,
            "boundary_iou/c": 0.0,
            "mean_boundary_iou": 0.5,
            "mean_iou": (3 / 4 + 1 + 0) / 3,
            "mean_dice": (6 / 7 + 1 + 0) / 3,
            "pixel_accuracy": 6 / 7,
            "frequency_weighted_iou": (4 * 3 / 4 + 3) / 7,
        }
    )


def test_summary_of_a_perfect_prediction_is_1():
    labels = np.array([[[0, 1, 1]]], np.int32)
    metric = SemanticTask(2).measure(jnp.eye(2)[labels], Record(labels=labels))
    scores = SemanticTask(2).summary(metric, _classes("a", "b"))
    assert set(scores.values()) == {1.0}


def test_padding_changes_no_metric():
    """A picture on a larger canvas has the borders that it has alone."""
    record = _record((12, 16))
    probs = jax.nn.softmax(_logits(2, 12, 16, CLASSES))
    record = record.replace(where=np.ones((2, 12, 16), bool), size=np.array([[12, 16]] * 2))
    pad = lambda x: np.pad(x, [(0, 0), (0, 20), (0, 9), *[(0, 0)] * (x.ndim - 3)])
    padded = record.replace(labels=pad(record.labels), where=pad(record.where))
    jax.tree.map(assert_array_equal, TASK.measure(pad(probs), padded), TASK.measure(probs, record))


@pytest.mark.parametrize(("channels", "mean"), [(1, [0.25]), (4, [0.25, 0.5, 0.75, 0.25])])
def test_means_begin_anew_where_there_are_more_channels(channels, mean):
    task = SemanticTask(2, mean=(0.25, 0.5, 0.75), std=(0.5,))
    images = np.ones((1, 2, 2, channels), np.float32)
    expected = np.broadcast_to((1 - np.array(mean)) / 0.5, images.shape)
    assert_allclose(task.inputs(images), expected, rtol=1e-6)
