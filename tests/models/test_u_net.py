"""The U-Net: its shapes, its size, and that its options change the cost and not the map."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import UNet, unet, unet_patch2, unet_small, unet_tiny

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time


def _images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _init(model, images, **options):
    return jax.jit(functools.partial(model.init, **options))(KEY, images)


def _logits_shape(model, shape, **options):
    output, _ = jax.eval_shape(
        lambda x: model.init_with_output(KEY, x, **options), jnp.zeros(shape)
    )
    return output.logits.shape


def _count(model, channels):
    shape = (1, *[16] * model.dimensions, channels)
    variables = jax.eval_shape(model.init, KEY, jnp.zeros(shape))
    return sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"]))


def _gradients(model, variables, images):
    """Of a sum of squared logits, in training."""

    def total(params):
        output, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (output.logits.astype(jnp.float32) ** 2).mean()

    return jax.jit(jax.grad(total))(variables["params"])


@given(height=st.integers(1, 40), width=st.integers(1, 40), depth=st.integers(1, 5))
def test_logits_have_the_size_of_the_image_whatever_it_is(height, width, depth):
    model = UNet(3, widths=(2,) * depth)
    assert _logits_shape(model, (1, height, width, 3)) == (1, height, width, 3)


@given(
    size=st.tuples(*[st.integers(1, 12)] * 3),
    upsampling=st.sampled_from(["transposed", "bilinear"]),
)
def test_one_definition_serves_volumes(size, upsampling):
    model = UNet(4, widths=(2, 3, 4), dimensions=3, upsampling=upsampling)
    assert _logits_shape(model, (2, *size, 1)) == (2, *size, 4)


@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize("norm", ["group", "none", "batch"])
def test_leading_axes_are_a_batch(lead, norm):
    model = unet(3, widths=(4, 8), norm=norm)
    images = _images(6, 7, 5, 3)[: math.prod(lead)]
    variables = _init(model, images)
    apply = jax.jit(lambda x: model.apply(variables, x).logits)
    assert_allclose(
        apply(images.reshape(*lead, 7, 5, 3)),
        apply(images).reshape(*lead, 7, 5, 3),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("model", "channels", "parameters"),
    [
        # Of the reference implementations in torch (milesial/Pytorch-UNet with batch norm; the
        # paper's with biases and padding), without their buffers.
        (unet(2), 3, 31_037_698),
        (unet(1), 3, 31_037_633),
        (unet(2, norm="none"), 1, 31_030_658),
    ],
)
def test_the_paper_s_network_has_as_many_parameters_as_its_reference(model, channels, parameters):
    assert _count(model, channels) == parameters


@pytest.mark.parametrize(
    ("model", "millions"), [(unet, 31.0), (unet_small, 7.8), (unet_tiny, 1.9), (unet_patch2, 0.7)]
)
def test_parameters_are_as_many_as_the_docstrings_say(model, millions):
    assert round(_count(model(2), 3) / 1e6, 1) == millions


def test_deep_supervision_gives_the_coarser_levels_in_training_alone():
    model = unet(3, widths=(2, 3, 4, 5), deep_supervision=True)
    images = _images(1, 26, 20, 3)
    # The auxiliary heads' parameters exist only where training made them.
    variables = _init(model, images, train=True)
    output, _ = jax.eval_shape(
        lambda: model.apply(variables, images, train=True, mutable=["batch_stats"])
    )
    assert [a.shape for a in output.auxiliary] == [(1, 13, 10, 3), (1, 6, 5, 3)]
    judged = jax.eval_shape(model.apply, variables, images)
    assert judged.auxiliary == ()
    assert judged.logits.shape == (1, 26, 20, 3)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_every_parameter_has_a_gradient(norm, upsampling):
    model = unet(3, widths=(4, 8), norm=norm, upsampling=upsampling)
    images = _images(2, 9, 7, 3)
    gradients = _gradients(model, _init(model, images), images)
    norms = {
        jax.tree_util.keystr(path): float(jnp.abs(g).sum())
        for path, g in jax.tree.leaves_with_path(gradients)
    }
    assert all(np.isfinite(value) and value > 0 for value in norms.values()), norms


def test_norm_none_has_neither_norms_nor_statistics_and_takes_biases_instead():
    model = unet(3, widths=(4, 8), norm="none")
    variables = jax.eval_shape(model.init, KEY, _images(1, 8, 8, 3))
    assert set(variables) == {"params"}
    assert all(
        set(conv) == {"kernel", "bias"} for conv in variables["params"]["encoder_0"].values()
    )


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_remat_changes_no_gradient(norm):
    images = _images(2, 9, 7, 3)
    plain, remat = (unet(3, widths=(4, 8), norm=norm, remat=remat) for remat in (False, True))
    variables = _init(plain, images)
    assert jax.tree.structure(variables) == jax.tree.structure(_init(remat, images))
    jax.tree.map(
        lambda a, b: assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        _gradients(plain, variables, images),
        _gradients(remat, variables, images),
    )


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_bfloat16_is_for_the_computation_alone(upsampling):
    images = _images(2, 16, 16, 3)
    exact, fast = (
        unet(3, widths=(8, 16), dtype=dtype, upsampling=upsampling)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    variables = _init(fast, images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
    logits = jax.jit(fast.apply)(variables, images).logits
    assert logits.dtype == jnp.float32
    expected = jax.jit(exact.apply)(variables, images).logits
    # bfloat16 keeps 8 bits; a handful of layers lose a few of them.
    assert_allclose(logits, expected, atol=0.05 * float(jnp.abs(expected).max()))
    _, captured = jax.eval_shape(
        lambda: fast.apply(variables, images, capture_intermediates=True, mutable=True)
    )
    inside = captured["intermediates"]
    assert inside["decoder_0"]["__call__"][0].dtype == jnp.bfloat16


def test_float64_stays_float64():
    with jax.enable_x64(True):
        model = unet(3, widths=(4, 8), dtype=jnp.float64, param_dtype=jnp.float64)
        images = _images(1, 8, 8, 3).astype(np.float64)
        output, _ = jax.eval_shape(model.init_with_output, KEY, images)
        assert output.logits.dtype == np.float64


def test_batch_statistics_move_in_training_alone():
    model = unet(3, widths=(4, 8))
    images = _images(2, 8, 8, 3)
    variables = _init(model, images)
    apply = jax.jit(functools.partial(model.apply, mutable=["batch_stats"]), static_argnums=2)
    _, moved = apply(variables, images, True)
    before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, moved))
    assert all((a != b).any() for a, b in zip(after, before, strict=True))
    _, stayed = apply(variables, images, False)
    jax.tree.map(assert_array_equal, stayed["batch_stats"], variables["batch_stats"])


def test_widths_are_an_option_of_every_size():
    assert unet_tiny(3, widths=(4, 8)) == unet_small(3, widths=(4, 8)) == unet(3, widths=(4, 8))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_too_few_axes_are_refused(dimensions):
    with pytest.raises(ValueError, match=rf"images: expected at least {dimensions + 1} axes"):
        unet(3, widths=(4,), dimensions=dimensions).init(KEY, jnp.zeros((8,) * dimensions))


def test_unknown_options_are_refused(unchecked_shapes):
    images = _images(1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"norm: .*'layer'"):
        unet(3, widths=(4,), norm="layer").init(KEY, images)
    with pytest.raises(ValueError, match=r"upsampling: .*'nearest'"):
        unet(3, widths=(4, 8), upsampling="nearest").init(KEY, images)
