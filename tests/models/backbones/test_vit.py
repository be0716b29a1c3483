"""Vision transformers: their shapes, sizes and options; their numbers stand in the parity tests."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import backbones, layers
from segjax.models.backbones import VisionTransformer
from segjax.models.backbones.vit import resize_bicubic, resize_positions, resize_with_offset

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
small = functools.partial(VisionTransformer, 16, 4, 2, patch_size=4, image_size=8)


def _shapes(model, shape, dtype=jnp.float32):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, dtype))


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 7, 13, 4)])
@pytest.mark.parametrize(
    ("options", "extra"), [({}, 1), ({"distilled": True}, 2), ({"registers": 4}, 5)]
)
def test_features_by_name(options, extra, shape):
    model = small(num_classes=7, return_attention=True, **options)
    outputs, _ = _shapes(model, shape)
    *lead, rows, columns = (*shape[:-3], -(-shape[-3] // 4), -(-shape[-2] // 4))
    tokens = extra + rows * columns
    assert model.prefix_tokens == extra
    assert {name: outputs[name].shape for name in ("tokens", "classes")} == {
        "tokens": (*lead, tokens, 16),
        "classes": (*lead, 7),
    }
    for name in ("stage1", "stage2", "stage3", "stage4", "patches"):
        assert outputs[name].shape == (*lead, rows, columns, 16)
    assert [a.shape for a in outputs["attention"]] == [(*lead, 2, tokens, tokens)] * 4


def test_without_attention_or_classifier_there_are_none():
    outputs, _ = _shapes(small(), (8, 8, 3))
    assert set(outputs) == {"stage1", "stage2", "stage3", "stage4", "patches", "tokens"}


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        # timm's, with and without the classifiers of 1000 classes.
        ("vit_tiny_patch16", {"num_classes": 1000}, 5_717_416),
        ("vit_small_patch16", {"num_classes": 1000}, 22_050_664),
        ("vit_base_patch16", {"num_classes": 1000}, 86_567_656),
        ("vit_large_patch16", {"num_classes": 1000}, 304_326_632),
        ("vit_tiny_patch16", {"distilled": True}, 5_524_800),
        ("dinov2_small", {}, 22_056_192),
        ("dinov2_base", {}, 86_579_712),
        ("dinov2_large", {}, 304_367_616),
    ],
)
def test_parameters_are_as_many_as_the_original_s(name, options, parameters):
    _, variables = _shapes(getattr(backbones, name)(**options), (28, 28, 3))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables)) == parameters


def test_registers_came_without_the_offset():
    assert backbones.dinov2_small().resize is resize_with_offset
    assert backbones.dinov2_small(registers=4).resize is resize_bicubic


def test_positions_of_the_own_size_stay_as_they_are():
    embedding = _random(1, 10, 5)
    for resize in (resize_bicubic, resize_with_offset):
        assert_array_equal(resize_positions(embedding, (3, 3), resize), embedding)


@pytest.mark.parametrize("resize", [resize_bicubic, resize_with_offset])
def test_positions_of_the_tokens_before_the_patches_stay_and_the_rest_moves_with_the_grid(resize):
    ramp = np.arange(25, dtype=np.float32).reshape(1, 25, 1) // 5
    embedding = np.concatenate([_random(1, 2, 1), ramp], axis=1)
    resized = resize_positions(embedding, (10, 4), resize)
    assert_array_equal(resized[:, :2], embedding[:, :2])
    rows = resized[0, 2:, 0].reshape(10, 4)
    assert_allclose(rows, rows[:, :1] * np.ones(4), atol=1e-5)
    assert np.all(np.diff(rows[1:-1, 0]) > 0)


def test_pixels_beyond_whole_patches_are_zeros():
    images, model = _random(1, 6, 7, 3), VisionTransformer(16, 1, 2, patch_size=4, image_size=8)
    padded = jnp.pad(images, [(0, 0), (0, 2), (0, 1), (0, 0)])

    @jax.jit
    def run(key):
        outputs, variables = model.init_with_output(key, images)
        return outputs["tokens"], model.apply(variables, padded)["tokens"]

    assert_allclose(*run(KEY), rtol=1e-5, atol=1e-6)


def test_drop_path_keeps_or_drops_a_branch_of_a_whole_example_and_rises_with_depth():
    rates = {}

    def intercept(next_function, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and context.module.broadcast_dims:
            assert context.module.broadcast_dims == (-2, -1)
            rates.setdefault(context.module.scope.path[0], context.module.rate)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(intercept):
        _shapes(small(drop_path=0.3), (8, 8, 3))
    assert_allclose([rates[f"block{i}"] for i in range(4)], [0, 0.1, 0.2, 0.3])


def test_attention_weights_are_the_softmax_of_products():
    query, key = _random(2, 3, 4), _random(2, 5, 4, seed=1)
    scores = np.einsum("hqd,hkd->hqk", query, key) / 2
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    assert_allclose(layers.attention_weights(query, key), expected, rtol=1e-5)
    # Scores beyond the range of half precision's exponential.
    narrow = layers.attention_weights(*((100 * x).astype(jnp.float16) for x in (query, key)))
    assert narrow.dtype == jnp.float16
    assert_allclose(narrow.sum(-1), 1, rtol=1e-2)


def test_features_must_divide_among_the_heads():
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 16, got 3"):
        _shapes(VisionTransformer(16, 1, 3, patch_size=4, image_size=8), (8, 8, 3))
