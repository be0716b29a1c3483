"""Each layer is a fast form of a plain one: the same map, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import layers
from segjax.ops import resize

DIMENSIONS = pytest.mark.parametrize("dimensions", [2, 3])


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _volume(dimensions, channels, *, lead=(2,)):
    return _random(*lead, *(4, 6, 2)[:dimensions], channels)


def _assert_same_map(f, g, *inputs, rtol=1e-5):
    """Equal values, and equal gradients of a random weighted sum of them."""
    expected = g(*inputs)
    weights = _random(*expected.shape, seed=1)
    total = lambda function: lambda *x: (function(*x) * weights).sum()
    assert_allclose(f(*inputs), expected, rtol=rtol, atol=1e-5)
    everything = tuple(range(len(inputs)))
    gradients = jax.grad(total(f), everything)(*inputs)
    for ours, theirs in zip(gradients, jax.grad(total(g), everything)(*inputs), strict=True):
        assert_allclose(ours, theirs, rtol=rtol, atol=1e-5)


@DIMENSIONS
def test_up_conv_is_the_transposed_convolution_of_kernel_and_stride_2(dimensions):
    x = _volume(dimensions, 3)
    layer = layers.UpConv2x(5, dimensions)
    kernel, bias = _random(3, 2**dimensions * 5), _random(5)

    def ours(x, kernel, bias):
        return layer.apply({"params": {"Dense_0": {"kernel": kernel}, "bias": bias}}, x)

    def transposed(x, kernel, bias):
        taps = kernel.reshape(3, *[2] * dimensions, 5)
        spatial = "DHW"[-dimensions:]
        return bias + jax.lax.conv_transpose(
            x,
            jnp.moveaxis(taps, 0, -1),
            (2,) * dimensions,
            "VALID",
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
            transpose_kernel=True,
        )

    _assert_same_map(ours, transposed, x, kernel, bias)


@DIMENSIONS
def test_up_conv_has_the_parameters_of_a_transposed_convolution(dimensions):
    x = _volume(dimensions, 3)
    plain = nn.ConvTranspose(5, (2,) * dimensions, (2,) * dimensions, "VALID")
    count = lambda layer: sum(p.size for p in jax.tree.leaves(layer.init(jax.random.key(0), x)))
    assert count(layers.UpConv2x(5, dimensions)) == count(plain)


@DIMENSIONS
def test_up_conv_reaches_each_output_from_its_own_input_alone(dimensions):
    layer = layers.UpConv2x(1, dimensions)
    x = _volume(dimensions, 2, lead=())
    variables = layer.init(jax.random.key(0), x)
    moved = layer.apply(variables, x.at[(0,) * dimensions].add(1))
    changed = np.argwhere(moved != layer.apply(variables, x))
    assert len(changed) == 2**dimensions
    assert changed.max() <= 1


@DIMENSIONS
def test_max_pool_is_flax_max_pool(dimensions):
    x = _volume(dimensions, 3)
    window = (2,) * dimensions
    ours = lambda x: layers.max_pool_2x(x, dimensions)
    _assert_same_map(ours, lambda x: nn.max_pool(x, window, window), x)


def test_max_pool_shares_the_gradient_equally_among_equals():
    blocks = jnp.array([[[1, 1], [1, 0]], [[2, 2], [2, 2]], [[0, -1], [-jnp.inf, -1]]])[..., None]
    weights = jnp.array([3, 4, 5]).reshape(3, 1, 1, 1)
    gradient = jax.grad(lambda x: (weights * layers.max_pool_2x(x, 2)).sum())(blocks)
    expected = [[[1, 1], [1, 0]], [[1, 1], [1, 1]], [[5, 0], [0, 0]]]
    assert_allclose(gradient[..., 0], expected, rtol=1e-6)


@DIMENSIONS
def test_linear_upsampling_aligns_the_corners(dimensions):
    x = _volume(dimensions, 3)
    expected = np.asarray(x)
    for axis in range(1, 1 + dimensions):
        size = x.shape[axis]
        places = np.linspace(0, size - 1, 2 * size)
        interpolate = lambda line, places=places: np.interp(places, np.arange(len(line)), line)
        expected = np.apply_along_axis(interpolate, axis, expected)
    assert_allclose(layers.upsample_linear_2x(x, dimensions), expected, rtol=1e-5, atol=1e-5)


def test_linear_upsampling_is_ops_resize():
    x = _volume(2, 3)
    ours = lambda x: layers.upsample_linear_2x(x, 2)
    _assert_same_map(ours, lambda x: resize(x, (8, 12), align_corners=True), x)


@DIMENSIONS
@given(size=st.integers(1, 9), multiple=st.sampled_from([1, 2, 4, 8]))
def test_padding_repeats_the_border_at_the_far_end(dimensions, size, multiple):
    x = _random(2, *[size] * dimensions, 3)
    padded = layers.pad_to_multiple(x, multiple, dimensions)
    due = -(-size // multiple) * multiple
    assert padded.shape == (2, *[due] * dimensions, 3)
    nearest = np.minimum(np.arange(due), size - 1)
    assert_array_equal(padded, x[np.ix_([0, 1], *[nearest] * dimensions, [0, 1, 2])])


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@DIMENSIONS
def test_group_norm_normalises_each_example_by_itself(dimensions, lead):
    x = 3 * _volume(dimensions, 16, lead=lead) + 2
    y = _normalised(x, "group", dimensions)
    groups = np.asarray(y).reshape(*lead, -1, 8, 2)
    assert_allclose(groups.mean((-3, -1)), 0, atol=1e-4)
    assert_allclose(groups.var((-3, -1)), 1, atol=1e-3)


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 6), (5, 5), (7, 7), (11, 1)])
def test_group_norm_takes_the_most_groups_up_to_8_that_divide_the_channels(channels, groups):
    x = _volume(2, channels)
    expected = nn.GroupNorm(groups).init_with_output(jax.random.key(0), x)[0]
    assert_allclose(_normalised(x, "group", 2), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_takes_statistics_of_the_batch_in_training_alone():
    x = 3 * _volume(2, 4) + 2
    layer = layers.norm("batch", train=True)
    y, changed = layer.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    assert_allclose(y.var((0, 1, 2)), 1, atol=1e-4)
    running = changed["batch_stats"]
    assert_allclose(running["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-4)
    assert_allclose(running["var"], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-4)

    judged = layers.norm("batch", train=False).apply(
        {"params": {"scale": np.ones(4), "bias": np.zeros(4)}, **changed}, x
    )
    assert_allclose(judged, (x - running["mean"]) / np.sqrt(running["var"] + 1e-5), rtol=1e-4)


def test_no_norm_is_the_identity():
    x = _volume(2, 4)
    assert layers.norm("none", train=True)(x) is x


def test_an_unknown_norm_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=r"norm: .*'layer'"):
        layers.norm("layer", train=True)


def _normalised(x, kind, dimensions):
    layer = layers.norm(kind, train=True, dimensions=dimensions)
    return layer.init_with_output(jax.random.key(0), x)[0]
