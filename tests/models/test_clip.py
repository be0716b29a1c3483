"""CLIP: sizes of the published models, and what its towers must not see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax import models
from segjax.models.clip import Clip
from segjax.models.clip_towers import ClipImageTower, ClipTextTower
from segjax.models.layers import quick_gelu

SHARED = {"epsilon": 1e-5, "activation": quick_gelu}
IMAGE = functools.partial(ClipImageTower, 16, 2, 2, 4, 8, 6, **SHARED)
TEXT = functools.partial(ClipTextTower, 16, 2, 2, 20, 7, 6, "end", **SHARED)


@pytest.fixture(scope="module")
def tiny():
    model, rng = Clip(IMAGE, TEXT), np.random.default_rng(0)
    template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 2
    return model, jax.tree.map(draw, template)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("clip_vit_base_patch32", 151_277_313),
        ("clip_vit_base_patch16", 149_620_737),
        ("clip_vit_large_patch14", 427_616_513),
        ("clip_vit_large_patch14_336", 427_944_193),
        ("clip_resnet50", 102_007_137),
        ("clip_resnet101", 119_688_033),
        ("clipseg_rd64", 149_620_737 + 1_073_153),
        ("clipseg_rd64_refined", 149_620_737 + 1_127_009),
        ("siglip_base_patch16", 203_155_970),
        ("siglip2_base_patch16", 375_187_970),
    ],
)
def test_published_models_have_as_many_parameters(name, parameters):
    model = getattr(models, name)()
    template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(template["params"])) == parameters


def test_nothing_after_the_end_of_a_text_counts(tiny):
    model, variables = tiny
    encode = jax.jit(functools.partial(model.apply, method="encode_text"))
    ids = jnp.array([18, 3, 4, 19, 0, 0, 0])
    expected = encode(variables, ids)
    assert_allclose(encode(variables, ids.at[4:].set(5)), expected, atol=1e-5)
    assert_allclose(encode(variables, ids[:4]), expected, atol=1e-5)
    assert not np.allclose(encode(variables, ids.at[2].set(5)), expected, atol=1e-2)


def test_a_text_that_is_too_long_is_an_error(tiny):
    model, variables = tiny
    with pytest.raises(ValueError, match="ids: expected at most 7 tokens, got 8"):
        model.apply(variables, jnp.zeros(8, int), method="encode_text")


def test_images_of_any_size_have_an_embedding(tiny):
    """Without batch axes too; the position embeddings of their own grid are used as they are."""
    model, variables = tiny
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    encode = functools.partial(model.apply, variables, method="encode_image")
    assert_allclose(encode(images)[1], encode(images[1]), atol=1e-5)
    assert encode(images[:, :5, :7]).shape == encode(jnp.zeros((2, 19, 8, 3))).shape == (2, 6)
