"""MobileNetV3: its features' sizes and its options; its numbers, the parity test shows."""

import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax.models.backbones import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from segjax.models.backbones.mobilenet_v3 import LARGE

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
FEATURES = {
    mobilenet_v3_large: {"stem": 16, "stage1": 24, "stage2": 40, "stage3": 80, "stage4": 960},
    mobilenet_v3_small: {"stem": 16, "stage1": 16, "stage2": 24, "stage3": 40, "stage4": 576},
}


def _shapes(model, shape):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@settings(max_examples=4)
@given(
    build=st.sampled_from([mobilenet_v3_large, mobilenet_v3_small]),
    output_stride=st.sampled_from([8, 16, 32]),
    size=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    lead=st.sampled_from([(), (2, 3)]),
)
def test_features_have_their_stride_or_the_least_allowed(build, output_stride, size, lead):
    features, _ = _shapes(build(output_stride=output_stride), (*lead, *size, 4))
    for (name, channels), stride in zip(FEATURES[build].items(), (2, 4, 8, 16, 32), strict=True):
        rows, columns = (-(-side // min(stride, output_stride)) for side in size)
        assert features[name].shape == (*lead, rows, columns, channels)


@pytest.mark.parametrize(
    # torchvision's, without the classifier.
    ("build", "parameters"),
    [(mobilenet_v3_large, 2_971_952), (mobilenet_v3_small, 927_008)],
)
def test_parameters_are_as_many_as_the_original_s(build, parameters):
    _, variables = _shapes(build(), (1, 32, 32, 3))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == parameters


def test_dilation_and_memory_are_no_matter_of_the_parameters():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    plain = MobileNetV3(LARGE)
    variables = jax.eval_shape(plain.init, KEY, images)
    for options in ({"output_stride": 8}, {"remat": True}):
        assert jax.eval_shape(plain.clone(**options).init, KEY, images) == variables


def test_remat_is_of_every_block():
    images = jnp.zeros((1, 32, 32, 3))
    count = lambda model: str(jax.make_jaxpr(model.init)(KEY, images)).count("remat2[")
    assert count(MobileNetV3(LARGE[:4])) == 0
    assert count(MobileNetV3(LARGE[:4], remat=True)) == 4


def test_another_output_stride_is_refused():
    with pytest.raises(ValueError, match="output_stride: expected 8, 16 or 32, got 4"):
        _shapes(mobilenet_v3_small(output_stride=4), (1, 32, 32, 3))
