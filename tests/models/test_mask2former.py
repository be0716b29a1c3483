"""Mask2Former: its shapes and its masked attention; that its numbers are right, parity shows."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax.models import Mask2Former, create
from segjax.models.backbones import resnet18
from segjax.models.backbones.resnet import BasicBlock, ResNet
from segjax.ops import resize

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
RESNET = functools.partial(ResNet, (1, 1, 1, 1), BasicBlock, frozen_norm=True)
small = functools.partial(
    Mask2Former, 7, backbone=RESNET, num_queries=5, features=32, num_heads=4, encoder_layers=1
)


def _shapes(model, shape):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@settings(max_examples=4)
@given(
    backbone=st.sampled_from([RESNET, resnet18]),
    size=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    lead=st.sampled_from([(), (2, 3)]),
    channels=st.sampled_from([1, 4]),
)
def test_queries_and_every_layer_give_classes_and_masks_of_a_quarter_of_the_size(
    backbone, size, lead, channels
):
    model = small(backbone=backbone, decoder_layers=2)
    output, _ = _shapes(model, (*lead, *size, channels))
    assert len(output.auxiliary) == 2
    for layer in (output, *output.auxiliary):
        assert layer.class_logits.shape == (*lead, 5, 8)
        assert layer.mask_logits.shape == (*lead, 5, *(-(-side // 4) for side in size))
        assert layer.boxes is None
    assert output.attention == ()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("mask2former_resnet50", 43_983_878), ("mask2former_swin_tiny", 47_436_800)],
)
def test_parameters_are_as_many_as_the_original_s(name, parameters):
    _, variables = _shapes(create(name, 133), (32, 32, 3))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == parameters


def test_layers_look_at_strides_32_16_8_in_turn():
    model = small(decoder_layers=4, return_attention=True)
    output, _ = _shapes(model, (2, 70, 64, 3))
    assert [a.shape for a in output.attention] == [(2, 4, 5, n) for n in (6, 20, 72, 6)]


def test_bfloat16_is_for_the_computation_alone():
    output, variables = _shapes(small(dtype=jnp.bfloat16, decoder_layers=1), (32, 32, 3))
    assert {x.dtype for x in jax.tree.leaves(output)} == {np.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_remat_is_of_every_block_and_layer_and_changes_no_parameter():
    images = jnp.zeros((32, 32, 3))
    plain, remat = (small(decoder_layers=2, remat=remat) for remat in (False, True))
    count = lambda model: str(jax.make_jaxpr(model.init)(KEY, images)).count("remat2[")
    assert (count(plain), count(remat)) == (0, 4 + 1 + 2)
    assert _shapes(plain, images.shape) == _shapes(remat, images.shape)


def test_queries_look_inside_their_masks_and_everywhere_where_they_have_none():
    model = small(decoder_layers=1, num_queries=50, return_attention=True)
    images = np.random.default_rng(0).normal(size=(96, 128, 3)).astype(np.float32)
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if len(leaf.shape) < 2:
            return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)
        return rng.normal(size=leaf.shape, scale=leaf.shape[-2] ** -0.5).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, _shapes(model, images.shape)[1])
    # What all pixels share makes some queries' masks empty.
    variables["params"]["pixel_decoder"]["mask_projection"]["bias"] = rng.normal(size=32)
    output = jax.jit(model.apply)(variables, images)
    before = output.auxiliary[0].mask_logits
    inside = resize(before[..., None], (3, 4))[..., 0].reshape(50, 12) >= 0
    empty = ~inside.any(axis=-1)
    assert empty.any()
    assert (inside.any(axis=-1) & ~inside.all(axis=-1)).any()
    looks = jnp.broadcast_to(inside | empty[:, None], (4, 50, 12))
    np.testing.assert_array_equal(output.attention[0] > 0, looks)
    np.testing.assert_allclose(output.attention[0].sum(axis=-1), 1, rtol=1e-5)
