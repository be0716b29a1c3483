"""MaskFormer: its shapes and options; that its numbers are right, its parity test shows."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax.models import MaskFormer, create
from segjax.models.backbones import SwinTransformer, resnet18

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
SWIN = functools.partial(SwinTransformer, 4, (1, 1, 1, 1), head_features=4, window_size=3)
small = functools.partial(
    MaskFormer,
    7,
    num_queries=5,
    features=32,
    hidden_features=16,
    num_heads=4,
    decoder_layers=3,
)


def _shapes(model, shape, train=False):
    run = functools.partial(model.init_with_output, train=train)
    return jax.eval_shape(run, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@settings(max_examples=3)
@given(
    backbone=st.sampled_from([SWIN, resnet18]),
    size=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    lead=st.sampled_from([(), (2, 3)]),
    channels=st.sampled_from([1, 4]),
)
def test_every_layer_gives_classes_and_masks_of_a_quarter_of_the_size(
    backbone, size, lead, channels
):
    output, _ = _shapes(small(backbone), (*lead, *size, channels))
    assert len(output.auxiliary) == 2
    for layer in (output, *output.auxiliary):
        assert layer.class_logits.shape == (*lead, 5, 8)
        assert layer.mask_logits.shape == (*lead, 5, *(-(-side // 4) for side in size))
        assert layer.boxes is None
    assert output.attention == ()


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("maskformer_resnet50", 150, 41_307_863),
        ("maskformer_swin_tiny", 150, 41_758_545),
    ],
)
def test_parameters_are_as_many_as_the_original_s(name, classes, parameters):
    _, variables = _shapes(create(name, classes), (32, 32, 3))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == parameters


def test_attention_is_of_each_layer_to_the_coarsest_features():
    output, _ = _shapes(small(SWIN, return_attention=True), (2, 70, 64, 3))
    assert [a.shape for a in output.attention] == [(2, 4, 5, 6)] * 3  # 3x2 pixels


def test_bfloat16_is_for_the_computation_alone():
    output, variables = _shapes(small(SWIN, dtype=jnp.bfloat16), (32, 32, 3))
    assert {x.dtype for x in jax.tree.leaves(output)} == {np.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_remat_is_of_every_block_and_layer_and_changes_no_parameter():
    images = jnp.zeros((32, 32, 3))
    trace = lambda model: jax.make_jaxpr(model.init, return_shape=True)(KEY, images)
    (plain, variables), (remat, same) = trace(small(SWIN)), trace(small(SWIN, remat=True))
    assert (str(plain).count("remat2["), str(remat).count("remat2[")) == (0, 4 + 3)
    assert variables == same


def test_training_drops_within_backbone_and_decoder():
    dropped = set()

    def intercept(next_function, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and not context.module.deterministic:
            dropped.add((context.module.scope.path[0], context.module.rate))
        return next_function(*args, **kwargs)

    backbone = functools.partial(SWIN, drop_path=0.25)
    with nn.intercept_methods(intercept):
        _shapes(small(backbone, dropout=0.5), (32, 32, 3))
        assert not dropped
        _shapes(small(backbone, dropout=0.5), (32, 32, 3), train=True)
    assert {("backbone", 0.25), ("decoder", 0.5)} <= dropped
