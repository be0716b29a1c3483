"""Mask R-CNN: any image, any objects, and what training and inference promise of their outputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax import losses
from segjax.models import MaskRCNN, create
from segjax.models.backbones.resnet import BasicBlock, ResNet
from segjax.models.detection_heads import MaskHead
from segjax.typing import Instances

SMALL = functools.partial(
    MaskRCNN,
    3,
    functools.partial(ResNet, (1, 1, 1, 1), BasicBlock),
    features=8,
    frozen_norm=False,
    head_norm=True,
    box_convs=1,
    box_features=(8,),
    mask_convs=1,
    anchor_sizes=(4.0, 8.0, 16.0, 32.0, 64.0),
    level_proposals=(20, 20),
    max_proposals=(20, 20),
    anchor_samples=16,
    proposal_samples=8,
    proposal_positives=0.5,
    score_threshold=0.0,
    max_detections=6,
)
IMAGES = np.random.default_rng(0).normal(size=(2, 33, 40, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 2)
KINDS = ("usual", "no area", "none", "crowd", "outside")


def _objects(kind):
    """Two of each image, of sizes that the anchors have."""
    boxes = np.float32([[[4, 4, 20, 20], [12, 8, 36, 30]]] * 2)
    if kind == "no area":
        boxes[:, 1] = [[7, 7, 7, 7]]
    if kind == "outside":
        boxes[:, 1] = [[-90, -90, -70, -60]]
        boxes[0, 0] = [30, 25, 90, 80]
    masks = np.random.default_rng(1).random((2, 2, 33, 40)) < 0.5
    return Instances(
        boxes,
        np.int32([[0, 2], [1, 1]]),
        np.full((2, 2), kind != "none"),
        masks=masks,
        crowd=np.array([[False, kind == "crowd"]] * 2),
    )


def _shapes(model, images, **options):
    init = functools.partial(model.init_with_output, **options)
    return jax.eval_shape(init, jax.random.key(0), images)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) < 2:
            return rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        width = np.sqrt(1 / np.prod(leaf.shape[:-1]))
        return rng.normal(size=leaf.shape, scale=width).astype(np.float32)

    return jax.tree.map(draw, _shapes(SMALL(), IMAGES)[1])


@pytest.fixture(scope="module")
def detect(variables):
    apply = jax.jit(SMALL().apply)
    return lambda images, sizes: apply(variables, images, sizes=sizes)


@pytest.fixture(scope="module")
def train(variables):
    """The output, and the sum of all losses with its gradient."""

    def objective(params, targets, keys):
        x, _ = SMALL().apply(
            variables | {"params": params},
            IMAGES,
            train=True,
            targets=targets,
            keys=keys,
            mutable=["batch_stats"],
        )
        first = slice(x.mask_logits.shape[1])
        terms = {
            **losses.rpn_loss(x.objectness, x.anchor_deltas, x.anchors, x.anchor_matches, targets),
            **losses.box_head_loss(x.class_logits, x.box_deltas, x.proposals, x.matches, targets),
            **losses.mask_head_loss(
                x.mask_logits, x.proposals[:, first], x.matches[:, first], targets
            ),
        }
        return sum(term.value for term in terms.values()), x

    run = jax.jit(jax.value_and_grad(objective, has_aux=True))
    return lambda targets, keys=KEYS: run(variables["params"], targets, keys)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("maskrcnn_resnet50_fpn", 44_401_393), ("maskrcnn_resnet50_fpn_v2", 46_359_409)],
)
def test_as_many_parameters_as_published(name, parameters):
    _, variables = _shapes(create(name, 90), np.zeros((1, 32, 32, 3), np.float32))
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(variables["params"]) == parameters


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 33, 65, 1), (7, 30, 5)])
def test_any_size_and_channels(shape):
    output, _ = _shapes(SMALL(), jnp.zeros(shape))
    lead = shape[:-3]
    assert output.objects.boxes.shape == (*lead, 6, 4)
    assert output.mask_logits.shape == (*lead, 6, 28, 28)


def test_narrow_computation_gives_wide_outputs():
    options = {"dtype": jnp.bfloat16}
    output, variables = _shapes(SMALL(**options), IMAGES)
    sampled, _ = _shapes(SMALL(**options), IMAGES, train=True, targets=_objects("usual"), keys=KEYS)
    floating = [x.dtype for x in jax.tree.leaves((output, sampled, variables))]
    assert set(floating) == {jnp.dtype(x) for x in (jnp.float32, jnp.int32, bool)}


def test_training_needs_objects_and_keys():
    for options in ({}, {"keys": KEYS}, {"targets": _objects("usual")}):
        with pytest.raises(ValueError, match="targets, keys: expected both"):
            _shapes(SMALL(), IMAGES, train=True, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_finite_whatever_the_objects(train, kind):
    (value, output), gradient = train(_objects(kind))
    for leaf in jax.tree.leaves((value, output, gradient)):
        assert np.isfinite(leaf).all()
    for matches in (output.anchor_matches, output.matches):
        assert (np.asarray(matches) >= 0).any() == (kind != "none")
        if kind == "crowd":
            assert (np.asarray(matches) != 1).all()


def test_samples_are_those_of_the_key(train):
    first, again, other = (
        train(_objects("usual"), jax.random.split(jax.random.key(seed), 2)) for seed in (0, 0, 1)
    )
    jax.tree.map(assert_array_equal, first, again)
    assert (np.asarray(first[0][1].anchors) != np.asarray(other[0][1].anchors)).any()


def test_masks_belong_to_all_that_have_an_object(train):
    _, output = train(_objects("usual"))[0]
    assert output.mask_logits.shape[1] == 4  # half of the 8 proposals
    assert (np.asarray(output.matches)[:, 4:] < 0).all()


def test_a_mask_head_skips_regions_without_objects(monkeypatch):
    """Those of others, and all gradients, are as if it took every region."""
    model = SMALL(head_norm=False)
    conv, block, _, up_conv = model._layers(train=True)
    head = MaskHead(3, 1, block, conv, up_conv)
    features = jax.random.normal(jax.random.key(0), (2, 5, 4, 4, 8))
    valid = jnp.arange(5) < jnp.array([[2], [0]])
    variables = head.init(jax.random.key(1), features, valid)

    def masks_and_gradients(masks):
        def total(variables, features):
            y = masks(variables, features)
            return jnp.sum(jnp.where(valid[..., None, None, None], y, 0) ** 2), y

        run = jax.jit(jax.grad(total, (0, 1), has_aux=True))
        gradients, y = run(variables, features)
        return y, gradients

    monkeypatch.setattr("segjax.models.mask_rcnn._REGIONS", 2)
    skipping = lambda v, x: model.bind({})._masks(head.bind(v), x, valid)
    actual = masks_and_gradients(skipping)
    expected = masks_and_gradients(lambda v, x: head.apply(v, x, valid))
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual[1], expected[1])
    assert_allclose(actual[0][0, :2], expected[0][0, :2], rtol=1e-4, atol=1e-5)
    assert_array_equal(actual[0][0, 2:], 0)
    assert_array_equal(actual[0][1], 0)


def test_an_image_alone_is_a_batch_of_one(variables, detect):
    alone = jax.jit(SMALL().apply)(variables, IMAGES[0])
    batch = detect(IMAGES, np.int32([[33, 40]] * 2))
    jax.tree.map(lambda a, b: assert_allclose(a, b[0], rtol=1e-4, atol=1e-4), alone, batch)


def test_nothing_is_found_outside_the_picture(detect):
    found = detect(IMAGES, np.int32([[33, 40], [17, 20]])).objects
    assert np.asarray(found.valid).all()
    for boxes, (height, width) in zip(found.boxes, [(33, 40), (17, 20)], strict=True):
        assert (boxes >= 0).all()
        assert (boxes <= np.array([width, height] * 2)).all()
    assert (np.diff(found.scores) <= 0).all()


def test_methods_of_roi_align_differ(variables):
    """Of the same boxes: `roi_method` takes the features, and changes no shape."""
    maps = [np.random.default_rng(i).normal(size=(1, 16 >> i, 16 >> i, 2)) for i in range(4)]
    maps = [jnp.asarray(x, jnp.float32) for x in maps]
    boxes = jnp.array([[[3.3, 2.2, 31.1, 40.7]]])
    features = [
        SMALL(roi_method=method)._align(maps, boxes, (7, 7))
        for method in ("bilinear", "nearest", "rounded")
    ]
    a, b, c = map(np.asarray, features)
    assert a.shape == b.shape == c.shape == (1, 1, 7, 7, 2)
    assert not np.allclose(a, b)
    assert not np.allclose(b, c)
