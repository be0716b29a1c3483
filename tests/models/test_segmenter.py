"""Segmenter: its shapes and options; that its numbers are right, its parity test shows."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax import analysis, models
from segjax.models import LinearDecoder, Segmenter, vit_linear
from segjax.models.backbones import VisionTransformer, vit_tiny_patch16
from segjax.ops import resize

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
small = functools.partial(VisionTransformer, 16, 2, 2, patch_size=4, image_size=8)


def _shapes(model, shape, dtype=jnp.float32):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, dtype))


def _images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("decoder", [models.MaskTransformer, LinearDecoder])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 7, 13, 4), (1, 8, 8, 1)])
def test_logits_have_the_image_s_size(decoder, shape):
    output, _ = _shapes(Segmenter(5, small, decoder), shape)
    assert output.logits.shape == (*shape[:-1], 5)
    assert output.attention == ()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Of the original, with the classifier of the encoder that no mask needs.
        ("segmenter_small_patch16", 26_418_964),
        ("segmenter_tiny_patch16_linear", 5_905_342),
    ],
)
def test_parameters_are_as_many_as_the_original_s(name, parameters):
    _, variables = _shapes(models.create(name, 150), (1, 32, 32, 3))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables)) == parameters


def test_any_vit_takes_a_linear_head():
    output, variables = _shapes(vit_linear(3, backbone=vit_tiny_patch16), (1, 20, 20, 3))
    assert output.logits.shape == (1, 20, 20, 3)
    assert variables["params"]["decoder"]["head"]["kernel"].shape == (192, 3)


def test_linear_logits_are_those_of_patches_interpolated():
    model, images = Segmenter(5, small, LinearDecoder), _images(1, 8, 6, 3)

    @jax.jit
    def run(key):
        output, variables = model.init_with_output(key, images)
        params = variables["params"]
        features = small().apply({"params": params["encoder"]}, images)
        head = params["decoder"]["head"]
        return output.logits, features["patches"] @ head["kernel"] + head["bias"]

    logits, coarse = run(KEY)
    assert_allclose(logits, resize(coarse, (8, 8))[:, :, :6], rtol=1e-4, atol=1e-5)


def test_attention_has_a_map_of_every_block_which_analysis_reads():
    model = Segmenter(5, small, return_attention=True)
    shape = (7, 13)
    output, _ = _shapes(model, (2, *shape, 3))
    # 2 x 4 patches; beside a class token in the encoder, with five classes in the decoder.
    assert [a.shape for a in output.attention] == [(2, 2, 9, 9)] * 2 + [(2, 1, 13, 13)] * 2
    token = functools.partial(analysis.class_token_maps, shape=shape, patch_size=4)
    query = functools.partial(analysis.class_query_maps, shape=shape, patch_size=4)
    rollout = jax.eval_shape(analysis.attention_rollout, output.attention[:2])
    assert jax.eval_shape(token, rollout).shape == (2, 7, 13)
    assert jax.eval_shape(query, output.attention[-1]).shape == (2, 1, 5, 7, 13)


def test_bfloat16_is_for_the_computation_alone():
    model, images = Segmenter(5, small, dtype=jnp.bfloat16), _images(1, 8, 8, 3)
    output, variables = _shapes(model, images.shape)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
    assert output.logits.dtype == jnp.float32
    _, captured = jax.eval_shape(
        lambda v: model.apply(v, images, capture_intermediates=True, mutable=True), variables
    )
    inside = captured["intermediates"]
    tokens, _ = inside["encoder"]["block1"]["__call__"][0]
    assert tokens.dtype == inside["decoder"]["norm"]["__call__"][0].dtype == jnp.bfloat16


def test_remat_recomputes_what_training_dropped():
    images = _images(2, 8, 8, 3)
    one_block = functools.partial(VisionTransformer, 16, 1, 2, patch_size=4, image_size=8)
    plain, remat = (
        Segmenter(5, one_block, LinearDecoder, remat=remat, drop_path=0.5)
        for remat in (False, True)
    )

    def loss(params, model):
        output = model.apply({"params": params}, images, True, rngs={"dropout": KEY})
        return jnp.sum(output.logits**2)

    @jax.jit
    def gradients(key):
        params = plain.init(key, images)["params"]
        return [jax.grad(loss)(params, model) for model in (plain, remat)]

    jax.tree.map(functools.partial(assert_allclose, rtol=1e-3, atol=1e-4), *gradients(KEY))
