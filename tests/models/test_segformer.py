"""SegFormer: its shapes, sizes and options; that its numbers are right, its parity test shows."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax.models import SegFormer, backbones, layers, segformer_b0
from segjax.models.backbones import MixTransformer
from segjax.models.backbones.mit import MixBlock

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
small = functools.partial(MixTransformer, (8, 16, 40, 64), (1, 1, 1, 2))


def _shapes(model, shape, dtype=jnp.float32):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, dtype))


@settings(max_examples=8)
@given(height=st.integers(29, 200), width=st.integers(29, 200), lead=st.sampled_from([(), (2, 3)]))
def test_logits_have_a_quarter_of_the_image_s_size(height, width, lead):
    output, _ = _shapes(SegFormer(5, small, features=8), (*lead, height, width, 4))
    assert output.logits.shape == (*lead, -(-height // 4), -(-width // 4), 5)
    assert output.attention == ()


def test_an_image_too_small_for_the_reduced_attention_is_refused():
    with pytest.raises(ValueError, match=r"images: expected .*, got shape \(1, 28, 64, 3\)"):
        _shapes(segformer_b0(3), (1, 28, 64, 3))


@pytest.mark.parametrize(
    ("name", "millions"), [("mit_b0", 3.3), ("mit_b1", 13.2), ("mit_b2", 24.2)]
)
def test_backbones_parameters_are_as_many_as_the_docstrings_say(name, millions):
    _, variables = _shapes(getattr(backbones, name)(), (1, 32, 32, 3))
    assert round(sum(math.prod(p.shape) for p in jax.tree.leaves(variables)) / 1e6, 1) == millions


def test_attention_has_a_map_of_every_block():
    model = SegFormer(3, small, features=8, return_attention=True)
    output, _ = _shapes(model, (2, 70, 64, 3))
    # Stage by stage: 18x16, 9x8, 5x4 and 3x2 queries, and keys of blocks of 8, 4, 2 and 1.
    assert [a.shape[1:] for a in output.attention] == [
        (1, 288, 4),
        (2, 72, 4),
        (5, 20, 4),
        (8, 6, 6),
        (8, 6, 6),
    ]


def test_bfloat16_is_for_the_computation_alone():
    model = SegFormer(3, small, features=8, dtype=jnp.bfloat16)
    output, variables = _shapes(model, (1, 32, 32, 3))
    assert output.logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
    features, _ = _shapes(small(dtype=jnp.bfloat16), (1, 32, 32, 3))
    assert {x.dtype for x in jax.tree.leaves(features)} == {np.dtype(jnp.bfloat16)}


def test_remat_is_of_every_block_and_changes_no_parameter():
    images = jnp.zeros((1, 32, 32, 3))
    plain, remat = (SegFormer(3, small, features=8, remat=remat) for remat in (False, True))
    assert jax.eval_shape(plain.init, KEY, images) == jax.eval_shape(remat.init, KEY, images)
    count = lambda model: str(jax.make_jaxpr(model.init)(KEY, images)).count("remat2[")
    assert (count(plain), count(remat)) == (0, 5)


def test_training_drops_branches_of_whole_examples():
    conv, dense = functools.partial(layers.Conv), functools.partial(layers.Dense)
    block = MixBlock(2, 1, 0.5, conv, dense, nn.LayerNorm, train=True, return_attention=False)
    x = jnp.broadcast_to(jax.random.normal(KEY, (4, 4, 8)), (32, 4, 4, 8))
    rngs = {"params": KEY, "dropout": jax.random.key(1)}
    (y, _), _ = jax.jit(block.init_with_output)(rngs, x)
    kinds = np.unique(np.round(np.asarray(y - x).reshape(32, -1), 4), axis=0)
    # Neither branch, either, or both; where it drops neither, both are twice as large.
    assert len(kinds) == 4
    assert (kinds == 0).all(axis=1).sum() == 1
