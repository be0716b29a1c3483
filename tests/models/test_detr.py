"""DETR: any image, any filling of a canvas, and every option that must not change its numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import AttentionMaskHead, Detr, ProductMaskHead, detr_resnet50_panoptic
from segjax.models.backbones.resnet import BasicBlock, ResNet

SMALL = functools.partial(
    Detr,
    3,
    functools.partial(ResNet, (1, 1, 1, 1), BasicBlock),
    num_queries=4,
    features=16,
    hidden_features=8,
    num_heads=2,
    encoder_layers=1,
    decoder_layers=2,
)
IMAGES = np.random.default_rng(0).normal(size=(2, 33, 40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return SMALL(mask_head=ProductMaskHead, return_attention=True)


@pytest.fixture(scope="module")
def variables(model):
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) < 2:
            return rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        width = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return rng.normal(size=leaf.shape, scale=width).astype(np.float32)

    return jax.tree.map(draw, _shapes(model, IMAGES)[1])


@pytest.fixture(scope="module")
def output(model, variables):
    return jax.jit(model.apply)(variables, IMAGES)


def _shapes(model, images, **options):
    init = functools.partial(model.init_with_output, **options)
    return jax.eval_shape(init, jax.random.key(0), images)


@pytest.mark.slow
def test_as_many_parameters_as_published():
    _, variables = _shapes(detr_resnet50_panoptic(250), jnp.zeros((1, 32, 32, 3)))
    params = variables["params"]
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(params) == 42_899_288
    fewer_classes = (250 - 91) * (256 + 1)
    assert count(params) - count(params["mask_head"]) - fewer_classes == 41_524_768
    # Frozen norms are no parameters.
    assert not [name for name in params["backbone"] if "norm" in name]


@pytest.mark.parametrize(
    ("head", "shape"),
    [
        (None, (2, 3, 45, 37, 1)),
        (AttentionMaskHead, (1, 1, 3)),
        (ProductMaskHead, (2, 33, 70, 4)),
    ],
)
def test_any_image_has_a_set_of_objects(head, shape):
    output, _ = _shapes(SMALL(mask_head=head, num_heads=8), jnp.zeros(shape))
    lead, (height, width) = shape[:-3], shape[-3:-1]
    masks = None if head is None else (*lead, 4, -(-height // 4), -(-width // 4))
    first = masks if head is ProductMaskHead else None
    for layer, mask_shape in ((output, masks), (output.auxiliary[0], first)):
        assert layer.class_logits.shape == (*lead, 4, 4)
        assert layer.boxes.shape == (*lead, 4, 4)
        assert (layer.mask_logits and layer.mask_logits.shape) == mask_shape
    assert len(output.auxiliary) == 1
    assert output.attention == ()


def test_half_precision_gives_wide_results():
    model = SMALL(mask_head=AttentionMaskHead, num_heads=8, dtype=jnp.bfloat16)
    output, variables = _shapes(model, IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves((output, variables))} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_nothing_looks_where_a_canvas_is_filled(model, variables, output):
    where = np.ones(IMAGES.shape[:3], bool)
    where[0, :, 15:] = False  # the second column of two
    filled = jax.jit(model.apply)(variables, IMAGES, where=where)
    assert len(filled.attention) == 3
    for maps in filled.attention:
        columns = maps.reshape(*maps.shape[:-1], 2, 2).sum((1, 2, -2))
        assert columns[0, 0] > 0
        assert columns[0, 1] == 0
    assert not np.allclose(filled.boxes[0], output.boxes[0], rtol=1e-6)
    jax.tree.map(lambda a, b: assert_allclose(a[1], b[1], rtol=1e-5), filled, output)


@pytest.mark.slow
def test_recomputing_changes_nothing_and_norms_stay_frozen(model, variables, output):
    recomputing = model.clone(remat=True, dropout=0.0)

    @jax.jit
    def derive(variables):
        def total(params):
            given = {**variables, "params": params}
            y, changed = recomputing.apply(given, IMAGES, train=True, mutable=["batch_stats"])
            return jnp.sum(y.class_logits), (y, changed)

        return jax.grad(total, has_aux=True)(variables["params"])

    gradient, (trained, changed) = derive(variables)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-5), trained, output)
    jax.tree.map(assert_array_equal, changed["batch_stats"], variables["batch_stats"])
    assert np.isfinite(jax.tree.reduce(lambda total, g: total + jnp.sum(g), gradient, 0.0))
    assert np.abs(gradient["queries"]).max() > 0
