"""The convolution is XLA's, in other forms on a CPU: values, and derivatives of every kind."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose

from segjax.models.layers import convolve

DEPTHWISE = {"padding": 1, "groups": 4}
# By form: the image's size, the kernel's shape, and the options.
FORMS = {
    "plain": ((7, 6), (3, 2, 4, 5), {"padding": 1, "stride": 2}),
    "plain, valid": ((9, 6), (3, 2, 4, 5), {}),
    "plain, wide": ((21, 20), (3, 2, 4, 32), {"padding": 1}),
    "plain, wide, strided": ((21, 19), (3, 4, 4, 32), {"padding": 1, "stride": 2}),
    "plain, wide, dilated": ((9, 8), (3, 2, 4, 32), {"dilation": 2}),
    "plain, wide, dilated, strided": ((9, 8), (3, 3, 4, 32), {"dilation": 2, "stride": 2}),
    "plain, border of zeros": ((4, 6), (3, 3, 4, 5), {"padding": 3}),
    "plain, kernel wider than the image": ((2, 1), (7, 7, 4, 5), {"padding": 3}),
    "plain, line": ((9,), (3, 4, 5), {"padding": 1, "stride": 2}),
    "plain, volume": ((5, 6, 4), (3, 3, 2, 4, 5), {"padding": 1}),
    "plain, volume, strided": ((5, 8, 7), (4, 3, 2, 4, 5), {"padding": 2, "stride": 2}),
    "several blocks": ((501, 41), (7, 7, 4, 5), {"padding": 2}),
    "several blocks, strided": ((350, 180), (7, 7, 4, 5), {"padding": 3, "stride": 3}),
    "grouped": ((6, 6), (3, 3, 2, 6), {"padding": 1, "groups": 2}),
    "more features than channels in a group": ((5, 6), (3, 3, 1, 8), {"groups": 4}),
    "depthwise": ((5, 6), (3, 3, 1, 4), DEPTHWISE),
    "depthwise, strided": ((9, 6), (3, 3, 1, 4), DEPTHWISE | {"stride": 2}),
    "depthwise, dilated": ((9, 7), (5, 3, 1, 4), {"padding": 4, "dilation": 2, "groups": 4}),
    "depthwise, volume": ((5, 6, 4), (3, 3, 3, 1, 4), DEPTHWISE),
    "depthwise, line": ((21,), (5, 1, 4), DEPTHWISE),
    "depthwise, tall": ((37, 6), (5, 3, 1, 4), {"padding": 3, "dilation": 2, "groups": 4}),
    "depthwise, rows that nothing sees": ((50, 6), (3, 3, 1, 4), {"stride": 3, "groups": 4}),
    "taps outside the border": ((9, 7), (3, 3, 4, 5), {"padding": 6, "dilation": 6}),
    "dilated, strided": ((9, 7), (3, 3, 4, 5), {"padding": 4, "dilation": 3, "stride": 2}),
    "pointwise": ((5, 6), (1, 1, 4, 5), {}),
    "pointwise, strided": ((9, 8), (1, 1, 4, 5), {"padding": 1, "stride": 3}),
}


def xla_convolve(x, kernel, *, stride=1, dilation=1, padding=0, groups=1):
    axes = "DHW"[-(kernel.ndim - 2) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * len(axes),
        [(padding, padding)] * len(axes),
        rhs_dilation=(dilation,) * len(axes),
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )


def _drawn(form):
    """An image, a kernel, and a function of both for each convolution, not linear in either."""
    size, kernel_shape, options = FORMS[form]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s)) for s in ((2, *size, 4), kernel_shape))
    ours, theirs = (
        lambda x, kernel, c=c: jnp.sum(jnp.sin(c(x, kernel, **options)))
        for c in (convolve, xla_convolve)
    )
    return x, kernel, ours, theirs


def _assert_close(ours, theirs, tolerance=1e-12):
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_xlas(form):
    *_, options = FORMS[form]
    with jax.enable_x64(True):
        x, kernel, *_ = _drawn(form)

        @jax.jit
        def both(x, kernel):
            results = []
            for convolution in (convolve, xla_convolve):
                y, pull = jax.vjp(lambda *a, c=convolution: c(*a, **options), x, kernel)
                results.append((y, pull(jnp.cos(jnp.arange(y.size)).reshape(y.shape))))
            return results

        _assert_close(*both(x, kernel))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["depthwise", "pointwise, strided"])
def test_second_and_forward_derivatives_are_xlas(form):
    with jax.enable_x64(True):
        x, kernel, ours, theirs = _drawn(form)

        def derivatives(f, x, kernel):
            tangents = (jnp.cos(x), kernel + 1)
            hessian_vector = jax.jvp(jax.grad(f, (0, 1)), (x, kernel), tangents)
            reverse = jax.grad(lambda *a: jnp.sum(jnp.cos(jax.grad(f)(*a))), (0, 1))(x, kernel)
            return hessian_vector, reverse, jax.jvp(f, (x, kernel), tangents)

        _assert_close(*jax.jit(lambda *a: [derivatives(f, *a) for f in (ours, theirs)])(x, kernel))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_is_a_loop(axes):
    with jax.enable_x64(True):
        x, kernel, ours, _ = _drawn("depthwise")
        several = [
            jnp.stack([a, jnp.cos(a)]) if axis == 0 else a
            for a, axis in zip((x, kernel), axes, strict=True)
        ]

        def both(*arguments):
            vmapped = jax.vmap(jax.grad(ours, (0, 1)), axes)(*arguments)
            mapped_sum = lambda *a: jax.vmap(ours, axes)(*a).sum()
            rows = [
                jax.grad(ours, (0, 1))(
                    *(a[i] if axis == 0 else a for a, axis in zip(arguments, axes, strict=True))
                )
                for i in range(2)
            ]
            looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
            summed = tuple(
                g if axis == 0 else g.sum(0) for g, axis in zip(looped, axes, strict=True)
            )
            return (vmapped, jax.grad(mapped_sum, (0, 1))(*arguments)), (looped, summed)

        _assert_close(*jax.jit(both)(*several))


@pytest.mark.parametrize("form", ["plain", "depthwise"])
def test_devices_share_the_batch(form):
    """Under a mesh, and in shard_map, where the kernel's gradient is summed over the devices."""
    x, kernel, ours, theirs = _drawn(form)
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    expected = jax.jit(jax.grad(theirs, 1))(x, kernel)
    spread = jax.device_put(x, NamedSharding(mesh, P("data")))
    _assert_close(jax.jit(jax.grad(ours, 1))(spread, kernel), expected, 1e-4)

    def gradient(x, kernel):
        return jax.grad(lambda kernel: lax.psum(ours(x, kernel), "data"))(kernel)

    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    _assert_close(jax.jit(sharded)(x, kernel), expected, 1e-4)


def test_other_devices_get_xlas_own_convolutions():
    image, kernel = jnp.zeros((1, 9, 9, 4)), jnp.zeros((3, 3, 1, 4))
    step = jax.jit(jax.grad(lambda *a: jnp.sum(convolve(*a, **DEPTHWISE) ** 2), (0, 1)))
    program = step.trace(image, kernel).lower(lowering_platforms=("tpu",)).as_text()
    assert program.count("stablehlo.convolution") == 3
    on_cpu = step.trace(image, kernel).lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.convolution" not in on_cpu


def test_a_loop_has_no_kernel_whose_order_xla_permutes():
    """A CPU's convolution with one takes nine times as long as one without."""
    image, kernel = jnp.zeros((3, 1, 9, 9, 64)), jnp.zeros((3, 3, 64, 64))
    turns = lambda x, k: jnp.sum(lax.map(lambda x: convolve(x, k, padding=1), x) ** 2)
    program = jax.jit(jax.grad(turns)).lower(image, kernel).compile().as_text()
    assert set(re.findall(r"dim_labels=(\S+?),", program)) == {"b01f_01io->b01f"}


@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_any_number_of_batch_axes(lead):
    x = jnp.arange(6.0 * 5 * 2 * max(1, np.prod(lead, dtype=int))).reshape(*lead, 6, 5, 2)
    y = jax.eval_shape(lambda x: convolve(x, jnp.ones((3, 3, 2, 7)), stride=2, padding=1), x)
    assert y.shape == (*lead, 3, 3, 7)


def test_half_precision_sums_in_single():
    """1 and 2^-9 ninety times over: bfloat16 alone would lose all but the 1."""
    x = jnp.full((1, 1, 1, 1), 1, jnp.bfloat16)
    row = jnp.concatenate([x, jnp.full((1, 1, 90, 1), 2.0**-9, jnp.bfloat16)], axis=2)
    y = convolve(row, jnp.ones((1, 46, 1, 1), jnp.bfloat16), dilation=2)
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0, 0, 0]) == pytest.approx(1 + 45 / 512, rel=2**-8)


def test_errors(unchecked_shapes):
    image = jnp.zeros((1, 4, 4, 6))
    with pytest.raises(ValueError, match=r"kernel: expected shape .*in = 6, groups = 1"):
        convolve(image, jnp.zeros((3, 3, 5, 2)))
    with pytest.raises(ValueError, match=r"kernel: expected shape .*multiple of groups"):
        convolve(image, jnp.zeros((3, 3, 2, 4)), groups=3)
    with pytest.raises(ValueError, match=r"x: expected .*dilation 2, got \(4, 4\)"):
        convolve(image, jnp.zeros((3, 3, 6, 2)), dilation=2)
