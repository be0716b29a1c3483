"""Swin transformers: shapes, windows, options; their numbers stand in MaskFormer's parity test."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import backbones, layers
from segjax.models.backbones import SwinTransformer
from segjax.models.backbones.swin import SwinBlock, offset_index

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
small = functools.partial(SwinTransformer, 8, (2, 1, 2, 1), head_features=4, window_size=3)


def _shapes(model, shape):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@settings(max_examples=3)
@given(
    size=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    lead=st.sampled_from([(), (2, 3)]),
    channels=st.sampled_from([1, 4]),
)
def test_features_have_their_stride(size, lead, channels):
    features, _ = _shapes(small(), (*lead, *size, channels))
    for i, stride in enumerate((4, 8, 16, 32)):
        rows, columns = (-(-side // stride) for side in size)
        assert features[f"stage{i + 1}"].shape == (*lead, rows, columns, 8 * 2**i)
    assert features["last"].shape == features["stage4"].shape


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "window_size", "classifier"),
    # Microsoft's classifiers of 1000 classes.
    [
        ("swin_tiny", 7, 28_288_354),
        ("swin_small", 7, 49_606_258),
        ("swin_large", 7, 196_532_476),
        ("swin_base", 12, 87_903_584),
    ],
)
def test_parameters_are_as_many_as_the_original_s(name, window_size, classifier):
    model = getattr(backbones, name)(window_size=window_size)
    features, variables = _shapes(model, (32, 32, 3))
    channels = [features[f"stage{i}"].shape[-1] for i in range(1, 5)]
    own_norms, head = 2 * sum(channels), 1000 * (channels[-1] + 1)
    parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(variables))
    assert parameters - own_norms + head == classifier


def test_a_bias_is_of_the_offset_between_two_pixels():
    index = offset_index(3)
    pixels = [(row, column) for row in range(3) for column in range(3)]
    places = {}
    for i, (row, column) in enumerate(pixels):
        for j, (other_row, other_column) in enumerate(pixels):
            offset = (row - other_row, column - other_column)
            assert places.setdefault(offset, index[i, j]) == index[i, j]
    assert sorted(places.values()) == list(range(25))


@pytest.mark.parametrize(
    ("shift", "borders"), [(0, (0, 4, 8)), (2, (0, 2, 6, 8))], ids=["plain", "shifted"]
)
def test_a_pixel_sees_its_window_alone_and_never_across_the_border(shift, borders):
    dense, norm = layers.Dense, nn.LayerNorm
    block = SwinBlock(2, 4, shift, 0.0, dense, norm, train=False)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(7, 8, 4)), jnp.float32)
    step = jnp.asarray([1.0, -1.0, 2.0, 0.0])
    drawn = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: drawn.normal(size=leaf.shape).astype(np.float32), _shapes(block, x.shape)[1]
    )
    moved = jnp.stack([x.at[row, column].add(step) for row, column in np.ndindex(7, 8)])
    results = jax.jit(block.apply)(variables, jnp.concatenate([x[None], moved]))
    reached = np.abs(results[1:] - results[0]).max(-1) > 0

    window = lambda length: np.searchsorted(borders, np.arange(length), side="right")
    rows, columns = np.meshgrid(window(7), window(8), indexing="ij")
    windows = (10 * rows + columns).reshape(-1)
    assert_array_equal(reached.reshape(56, 56), windows[:, None] == windows)


def test_drop_path_rises_with_depth_and_drops_either_branch_of_whole_examples():
    rates = {}

    def intercept(next_function, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            assert context.module.broadcast_dims == (-3, -2, -1)
            rates.setdefault(context.module.scope.path[0], []).append(context.module.rate)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(intercept):
        _shapes(small(drop_path=0.5), (32, 32, 3))
    blocks = ["stage1_block0", "stage1_block1", "stage2_block0"]
    blocks += ["stage3_block0", "stage3_block1", "stage4_block0"]
    assert_allclose([rates[b] for b in blocks], np.linspace(0, 0.5, 6)[:, None] * [1, 1])


def test_bfloat16_is_for_the_computation_alone():
    features, variables = _shapes(small(dtype=jnp.bfloat16), (32, 32, 3))
    assert {x.dtype for x in jax.tree.leaves(features)} == {np.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_remat_is_of_every_block_and_changes_no_parameter():
    images = jnp.zeros((32, 32, 3))
    trace = lambda model: jax.make_jaxpr(model.init, return_shape=True)(KEY, images)
    (plain, variables), (remat, same) = trace(small()), trace(small(remat=True))
    assert (str(plain).count("remat2["), str(remat).count("remat2[")) == (0, 6)
    assert variables == same


def test_heads_must_share_the_channels_out():
    with pytest.raises(ValueError, match="head_features: expected a divisor of 8, got 3"):
        _shapes(small(head_features=3), (32, 32, 3))
