"""DeepLab, LR-ASPP: shapes, sizes and options; that the numbers are right, parity tests show."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax.models import LRASPP, DeepLabV3Plus, create
from segjax.models.backbones import BasicBlock, MobileNetV3, ResNet
from segjax.models.backbones.mobilenet_v3 import SMALL

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time
MODELS = {
    "deeplabv3plus": DeepLabV3Plus(5, functools.partial(ResNet, (1, 1, 1, 1), BasicBlock)),
    "lraspp": LRASPP(5, functools.partial(MobileNetV3, tuple(SMALL[i] for i in (0, 1, 3, 8)))),
}
EVERY_MODEL = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def _shapes(model, shape):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@EVERY_MODEL
@settings(max_examples=3)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    lead=st.sampled_from([(), (2, 3)]),
    channels=st.integers(1, 4),
)
def test_logits_have_the_image_s_size_whatever_it_is(model, size, lead, channels):
    output, _ = _shapes(model, (*lead, *size, channels))
    assert output.logits.shape == (*lead, *size, 5)
    assert output.auxiliary == ()


def test_a_picture_of_one_pixel_whose_corners_are_all_one_has_finite_logits():
    model, images = MODELS["deeplabv3plus"], jnp.ones((1, 1, 1, 3))
    shapes = jax.eval_shape(model.init, KEY, images)
    variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.1), shapes)
    assert jnp.isfinite(jax.jit(model.apply)(variables, images).logits).all()


@EVERY_MODEL
def test_bfloat16_is_for_the_computation_alone(model):
    output, variables = _shapes(model.clone(dtype=jnp.bfloat16), (1, 32, 32, 3))
    assert output.logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}


@EVERY_MODEL
def test_remat_is_of_every_block_and_changes_no_parameter(model):
    images = jnp.zeros((1, 32, 32, 3))
    remat = model.clone(remat=True)
    assert jax.eval_shape(model.init, KEY, images) == jax.eval_shape(remat.init, KEY, images)
    count = lambda model: str(jax.make_jaxpr(model.init)(KEY, images)).count("remat2[")
    assert (count(model), count(remat)) == (0, 4)


@EVERY_MODEL
def test_another_output_stride_is_refused(model):
    with pytest.raises(ValueError, match="output_stride: expected 8, 16 or 32, got 4"):
        _shapes(model.clone(output_stride=4), (1, 32, 32, 3))


@pytest.mark.parametrize(
    # torchvision's and segmentation-models-pytorch's.
    ("name", "parameters"),
    [
        ("lraspp_mobilenet_v3_large", 3_221_538),
        ("deeplabv3_mobilenet_v3_large", 11_029_328),
        ("deeplabv3plus_resnet34", 22_442_597),
        ("deeplabv3plus_resnet50", 26_682_725),
        ("deeplabv3plus_resnet101", 45_674_853),
    ],
)
def test_parameters_are_as_many_as_the_original_s(name, parameters):
    _, variables = _shapes(create(name, 21), (1, 64, 64, 3))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == parameters


def test_every_block_of_a_dilated_stage_is_dilated_alike_on_request():
    geometry = lambda **options: ResNet((1, 1, 2, 2), BasicBlock, 8, **options).block_geometry()
    as_torchvision, as_smp = geometry(), geometry(dilate_first=True)
    assert as_torchvision[2:] == [[(1, 1), (1, 2)], [(1, 2), (1, 4)]]
    assert as_smp[2:] == [[(1, 2), (1, 2)], [(1, 4), (1, 4)]]
    assert as_torchvision[:2] == as_smp[:2]
