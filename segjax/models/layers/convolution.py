"""The convolution and the matrix product, each in the form that is fast forward and backward.

XLA's convolutions are what they should be on GPU and TPU. On a CPU some are many times slower than
need be, most of all the gradients; so the convolution is a primitive of its own, which a CPU lowers
to other forms of the same sums.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

from segjax.numerics import accumulation_dtype

Role = Literal["image", "kernel", "output"]
_ROLES: tuple[Role, ...] = ("image", "kernel", "output")


def convolve(
    x: Float[jax.Array, "..."],
    kernel: Float[jax.Array, "..."],
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Float[jax.Array, "..."]:
    """The convolution `y_i = Σ_k x_{s i + d k − p} w_k` of torch, channels last.

    Args:
      x: `[*b, *spatial, in]`.
      kernel: `[*kernel, in / groups, out]`; its rank tells the number of spatial axes.
      stride: `s`, along every spatial axis.
      dilation: `d`.
      padding: `p` zeros on each side.
      groups: of channels that do not see one another.

    Returns:
      `[*b, *new_spatial, out]`.

    Raises:
      ValueError: if the channels do not fit together, or the kernel is larger than the image.
    """
    dimensions = kernel.ndim - 2
    channels, features = x.shape[-1], kernel.shape[-1]
    if channels != groups * kernel.shape[-2] or features % groups:
        raise ValueError(
            f"kernel has shape {kernel.shape}; due are [*kernel, in / groups, out] with in = "
            f"{channels}, groups = {groups}, and out a multiple of groups"
        )
    if kernel.shape[:-2] == (1,) * dimensions and stride == 1 and padding == 0 and groups == 1:
        return project(x, kernel.reshape(kernel.shape[-2:]))
    lead, size = x.shape[: -1 - dimensions], x.shape[-1 - dimensions : -1]
    geometry = _Geometry(
        size, kernel.shape[:-2], channels, features, stride, dilation, padding, groups
    )
    if min(geometry.output_size) < 1:
        raise ValueError(
            f"x has the spatial size {size}; with kernel {kernel.shape[:-2]}, dilation {dilation} "
            f"and padding {padding} no output is left"
        )
    # Inside shard_map both must vary over the same devices.
    zero = jnp.zeros_like(x, shape=()) + jnp.zeros_like(kernel, shape=())
    image = x.reshape(-1, *size, channels) + zero
    y = _convolution_p.bind(image, kernel + zero, role="output", geometry=geometry)
    return y.reshape(*lead, *y.shape[1:])


def project(
    x: Float[jax.Array, "*b c"], kernel: Float[jax.Array, "c o"]
) -> Float[jax.Array, "*b o"]:
    """The matrix product over the last axis, `x @ kernel`, as one product of two matrices.

    In two dimensions the gradient of the kernel is a product of matrices too; over more axes a CPU
    would copy and transpose for it.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


class _Geometry(NamedTuple):
    """Which pixels an output sees: along each axis output i has pixel `s i + d k − p` at tap k."""

    image_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    channels: int
    features: int
    stride: int
    dilation: int
    padding: int
    groups: int

    @property
    def output_size(self) -> tuple[int, ...]:
        return tuple(
            (n + 2 * self.padding - self.dilation * (k - 1) - 1) // self.stride + 1
            for n, k in zip(self.image_size, self.kernel_size, strict=True)
        )

    def taps(self) -> Iterator[tuple[int, ...]]:
        """The kernel's positions."""
        return itertools.product(*map(range, self.kernel_size))


def _shape(role: Role, a: Any, b: Any, geometry: _Geometry) -> tuple[int, ...]:
    """The shape of what plays `role`, the other two being given."""
    if role == "output":
        return (a.shape[0], *geometry.output_size, geometry.features)
    if role == "kernel":
        channels = geometry.channels // geometry.groups
        return (*geometry.kernel_size, channels, geometry.features)
    return (b.shape[0], *geometry.image_size, geometry.channels)


def _library_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: _Geometry) -> jax.Array:
    """XLA's own convolution, or its transpose."""
    axes = "DHW"[-len(geometry.kernel_size) :]

    def convolution(image, kernel):
        return lax.conv_general_dilated(
            image,
            kernel,
            (geometry.stride,) * len(axes),
            [(geometry.padding, geometry.padding)] * len(axes),
            rhs_dilation=(geometry.dilation,) * len(axes),
            dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
            feature_group_count=geometry.groups,
        )

    if role == "output":
        return convolution(a, b)
    # Of the same type as `a`, which in shard_map tells the devices over which it varies.
    result = _result_aval(jax.typeof(a), b, role=role, geometry=geometry)
    if role == "image":
        return jax.linear_transpose(lambda image: convolution(image, a), result)(b)[0]
    return jax.linear_transpose(lambda kernel: convolution(a, kernel), result)(b)[0]


def _cpu_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: _Geometry) -> jax.Array:
    """The form that is fastest on a CPU."""
    form = _fastest_form(role, geometry)
    if form is _library_form:
        return form(a, b, role=role, geometry=geometry)
    dtype = accumulation_dtype(a)
    result = form(a.astype(dtype), b.astype(dtype), role=role, geometry=geometry)
    return result.astype(a.dtype)


def _fastest_form(role: Role, geometry: _Geometry) -> Callable[..., jax.Array]:
    if geometry.groups > 1:
        is_depthwise = geometry.groups == geometry.channels == geometry.features
        return _depthwise_form if is_depthwise else _library_form
    if geometry.dilation > 1 or max(geometry.kernel_size) == 1:
        return _cropped_form
    if role == "kernel":
        return _blocked_form
    return _unstrided_form if geometry.stride == 1 else _library_form


def _unstrided_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: _Geometry) -> jax.Array:
    """XLA's convolution, and the gradient by the image as one of the output's gradient."""
    dimensions = len(geometry.kernel_size)
    if role == "output":
        image, kernel, size = a, b, geometry.output_size
        padding = [geometry.padding] * dimensions
    else:
        image, size = b, geometry.image_size
        kernel = jnp.flip(a, range(dimensions)).swapaxes(-2, -1)
        # Turned round beforehand: of a kernel whose order it has to permute XLA makes slow loops.
        kernel = lax.optimization_barrier(kernel)
        padding = [k - 1 - geometry.padding for k in geometry.kernel_size]
    # XLA has two libraries for planes on a CPU, and prefers one that is slow where channels are
    # few. That one takes no convolution whose output is larger than its image: so rows are added.
    is_slow = dimensions == 2 and min(geometry.channels, geometry.features) < 64
    excess = max(image.shape[1] - size[0], 0) + 1 if is_slow else 0
    margins = [(p, p) for p in padding]
    margins[0] = padding[0], padding[0] + excess
    axes = "DHW"[-dimensions:]
    y = lax.conv_general_dilated(
        image,
        kernel,
        (1,) * dimensions,
        margins,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )
    return y[:, : size[0]]


# Of what a product of `_blocked_form` reads, so that it stays in a CPU's cache.
_BLOCK = 2**20


def _blocked_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: _Geometry) -> jax.Array:
    """The gradient by the kernel: a product of matrices for some rows of pixels at a time.

    Output i sees pixel `s i + k` of the padded image at tap `k = s m + r`: of the pixels that leave
    the remainder r, number `i + m`. So down the image it takes as many copies of the gradients as
    there are m, each m rows further down, and only across it a copy of the pixels for each tap.
    """
    (height, *across), (taps, *taps_across) = geometry.output_size, geometry.kernel_size
    stride, pad, channels = geometry.stride, geometry.padding, geometry.channels
    shifts = -(-taps // stride)
    # The last rows of every example have no output of their own: so none sees the next example.
    height += shifts - 1
    below = stride * height - geometry.image_size[0] - pad
    margins = [(0, 0, 0), (pad, below, 0), *[(pad, pad, 0)] * len(across), (0, 0, 0)]
    image = lax.pad(a, jnp.zeros((), a.dtype), margins)
    output = jnp.pad(b, [(0, 0), (0, shifts - 1), *[(0, 0)] * (len(across) + 1)])

    widths = stride * math.prod(taps_across) * channels, shifts * geometry.features
    blocks = max(-(-len(a) * height * math.prod(across) * max(widths) // _BLOCK), 1)
    rows = -(-len(a) * height // blocks)
    excess = rows * blocks - len(a) * height
    image = image.reshape(-1, stride, *image.shape[2:])
    image = jnp.pad(image, [(0, excess), *[(0, 0)] * (image.ndim - 1)])
    output = lax.collapse(output, 0, 2)
    output = jnp.pad(output, [(shifts - 1, excess), *[(0, 0)] * (output.ndim - 1)])

    def add_block(total, first):
        pixels = lax.dynamic_slice_in_dim(image, first, rows)
        gradients = lax.dynamic_slice_in_dim(output, first, rows + shifts - 1)
        seen = []
        for remainder, *tap in itertools.product(range(stride), *map(range, taps_across)):
            stop = [k + stride * (n - 1) + 1 for k, n in zip(tap, across, strict=True)]
            limits = (rows, remainder + 1, *stop, channels)
            strides = (1, 1, *[stride] * len(tap), 1)
            seen.append(_matrix(lax.slice(pixels, (0, remainder, *tap, 0), limits, strides)))
        shifted = [
            _matrix(lax.slice_in_dim(gradients, m, m + rows)) for m in reversed(range(shifts))
        ]
        matrices = [jnp.concatenate(parts, axis=1) for parts in (seen, shifted)]
        narrow, wide = sorted(matrices, key=lambda x: x.shape[1])
        return total + narrow.T @ wide, None

    # A product is faster with the narrower matrix first.
    total = jnp.zeros_like(a, shape=tuple(sorted(widths)))
    total, _ = lax.scan(add_block, total, rows * jnp.arange(blocks))
    total = total.T if widths[0] > widths[1] else total
    total = total.reshape(stride, *taps_across, channels, shifts, geometry.features)
    return lax.collapse(jnp.moveaxis(total, -2, 0), 0, 2)[:taps]


def _depthwise_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: _Geometry) -> jax.Array:
    """Sums of shifted products: each channel by itself."""
    if role == "kernel":
        return _depthwise_kernel(a, b, geometry)
    if role == "image":
        return _depthwise_form(**_turned(a, b, geometry), role="output")

    dimensions = len(geometry.kernel_size)
    border = [(0, 0), *[(geometry.padding, geometry.padding)] * dimensions, (0, 0)]
    # Behind the barrier for it to be made once, not for each tap.
    padded = lax.optimization_barrier(jnp.pad(a, border))

    def shifted(tap):
        start = [geometry.dilation * k for k in tap]
        stop = [
            s + geometry.stride * (o - 1) + 1
            for s, o in zip(start, geometry.output_size, strict=True)
        ]
        strides = (1, *[geometry.stride] * dimensions, 1)
        limits = (padded.shape[0], *stop, padded.shape[-1])
        return lax.slice(padded, (0, *start, 0), limits, strides)

    return functools.reduce(jnp.add, (shifted(tap) * b[tap][0] for tap in geometry.taps()))


# The compiler makes a copy of what it sums over pixels: of shifted pixels times gradients, for each
# tap. With the bands of rows added up first it copies a sixteenth. Of fewer bands, it was seen to
# copy each: several times as slow.
_BANDS = 16


def _depthwise_kernel(a: jax.Array, b: jax.Array, geometry: _Geometry) -> jax.Array:
    """The gradient by the kernel: for each tap products of bands of rows, added up, and then the
    sum over pixels.
    """
    (height, *across), (taps, *taps_across) = geometry.output_size, geometry.kernel_size
    stride, dilation, pad = geometry.stride, geometry.dilation, geometry.padding
    band = -(-height // _BANDS)
    rows = _BANDS * band
    seen_rows = stride * (rows - 1) + 1
    below = seen_rows + dilation * (taps - 1) - pad - geometry.image_size[0]
    margins = [(0, 0, 0), (pad, below, 0), *[(pad, pad, 0)] * len(across), (0, 0, 0)]
    image = lax.pad(a, jnp.zeros((), a.dtype), margins)
    output = jnp.pad(b, [(0, 0), (0, rows - height), *[(0, 0)] * (len(across) + 1)])
    strides = (1, stride, *[stride] * len(across), 1)

    def of_row(row):
        seen = lax.dynamic_slice_in_dim(image, dilation * row, seen_rows, 1)

        def product(tap, first):
            start = (0, stride * first, *[dilation * k for k in tap], 0)
            size = (band, *across)
            stop = [s + stride * (n - 1) + 1 for s, n in zip(start[1:], size, strict=False)]
            pixels = lax.slice(seen, start, (len(a), *stop, a.shape[-1]), strides)
            return pixels * lax.slice_in_dim(output, first, first + band, axis=1)

        def of_tap(tap):
            return functools.reduce(jnp.add, (product(tap, i * band) for i in range(_BANDS)))

        return [of_tap(tap) for tap in itertools.product(*map(range, taps_across))]

    axes = range(1, output.ndim)
    of_taps = [jnp.sum(x, axes) for x in lax.map(of_row, jnp.arange(taps))]
    return jnp.stack(of_taps, axis=1).reshape(_shape("kernel", a, b, geometry))


def _turned(kernel: jax.Array, output: jax.Array, geometry: _Geometry) -> dict:
    """The depthwise convolution that is the gradient by the image: of the gradient by the output,
    spread out by the stride, with the kernel turned round.
    """
    size, stride, dilation = geometry.kernel_size, geometry.stride, geometry.dilation
    margins = [(0, 0, 0)]
    for n, k, o in zip(geometry.image_size, size, geometry.output_size, strict=True):
        before = dilation * (k - 1) - geometry.padding
        after = n + geometry.padding - (stride * (o - 1) + 1)
        margins.append((before, after, stride - 1))
    spread = lax.pad(output, jnp.zeros((), output.dtype), [*margins, (0, 0, 0)])
    geometry = geometry._replace(image_size=spread.shape[1:-1], stride=1, padding=0)
    return {"a": spread, "b": jnp.flip(kernel, range(len(size))), "geometry": geometry}


def _cropped_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: _Geometry) -> jax.Array:
    """A matrix product for each tap, of those pixels alone that it sees inside the border."""
    shape = _shape(role, a, b, geometry)
    total = jnp.zeros(shape, a.dtype)
    zero = jnp.zeros((), a.dtype)
    for tap in geometry.taps():
        spans = [_span(axis, k, geometry) for axis, k in enumerate(tap)]
        if any(count <= 0 for _, _, count in spans):
            continue
        image_crop, output_crop = [slice(None)], [slice(None)]
        back_to_image, back_to_output = [(0, 0, 0)], [(0, 0, 0)]
        for n, o, (pixel, first, count) in zip(
            geometry.image_size, geometry.output_size, spans, strict=True
        ):
            stop = pixel + geometry.stride * (count - 1) + 1
            image_crop.append(slice(pixel, stop, geometry.stride))
            output_crop.append(slice(first, first + count))
            back_to_image.append((pixel, n - stop, geometry.stride - 1))
            back_to_output.append((first, o - first - count, 0))
        if role == "output":
            product = project(a[tuple(image_crop)], b[tap])
            total += lax.pad(product, zero, [*back_to_output, (0, 0, 0)])
        elif role == "image":
            product = project(b[tuple(output_crop)], a[tap].T)
            total += lax.pad(product, zero, [*back_to_image, (0, 0, 0)])
        else:
            product = _matrix(a[tuple(image_crop)]).T @ _matrix(b[tuple(output_crop)])
            total = total.at[tap].set(product)
    return total


def _span(axis: int, tap: int, geometry: _Geometry) -> tuple[int, int, int]:
    """Along an axis: the first pixel a tap sees, which output sees it there, and how many do."""
    offset = geometry.dilation * tap - geometry.padding
    first = max(0, -(offset // geometry.stride))
    last = (geometry.image_size[axis] - 1 - offset) // geometry.stride
    count = min(last, geometry.output_size[axis] - 1) - first + 1
    return geometry.stride * first + offset, first, count


def _matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _result_aval(a: Any, b: Any, *, role: Role, geometry: _Geometry) -> Any:
    return a.update(shape=_shape(role, a, b, geometry))


def _transpose(place: int, cotangent, a, b, *, role: Role, geometry: _Geometry):
    """The cotangent takes the place of `role`, and the operand at `place` becomes the result."""
    first, second = (r for r in _ROLES if r != role)
    known = {role: cotangent, **({second: b} if place == 0 else {first: a})}
    target = (first, second)[place]
    operands = [known[r] for r in _ROLES if r != target]
    return _convolution_p.bind(*operands, role=target, geometry=geometry)


def _batch(operands, axes, *, role: Role, geometry: _Geometry):
    """A new axis joins the examples'; but a kernel for each of its entries is one by one."""
    size = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
    operands = [
        jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
        for x, a in zip(operands, axes, strict=True)
    ]
    names = [r for r in _ROLES if r != role]
    bind = functools.partial(_convolution_p.bind, role=role, geometry=geometry)
    if role == "kernel" or axes[names.index("kernel")] is not None:
        library = functools.partial(_library_form, role=role, geometry=geometry)
        one_by_one = lambda *operands: lax.map(lambda pair: bind(*pair), operands)
        return lax.platform_dependent(*operands, cpu=one_by_one, default=jax.vmap(library)), 0
    operands = [
        x[0] if name == "kernel" else x.reshape(-1, *x.shape[2:])
        for name, x in zip(names, operands, strict=True)
    ]
    result = bind(*operands)
    return result.reshape(size, -1, *result.shape[1:]), 0


# `Σ output · (image * kernel)` is linear in each of the three. The primitive is its derivative by
# one of them, `role`, at the other two, in their order; its own transposes are the same again.
_convolution_p = Primitive("convolution")
_convolution_p.def_impl(jax.jit(_convolution_p.bind, static_argnames=("role", "geometry")))
_convolution_p.def_abstract_eval(_result_aval)
mlir.register_lowering(_convolution_p, mlir.lower_fun(_library_form, multiple_results=False))
mlir.register_lowering(
    _convolution_p, mlir.lower_fun(_cpu_form, multiple_results=False), platform="cpu"
)
ad.defbilinear(
    _convolution_p,
    lambda cotangent, a, b, **params: _transpose(0, cotangent, a, b, **params),
    lambda cotangent, a, b, **params: _transpose(1, cotangent, a, b, **params),
)
batching.primitive_batchers[_convolution_p] = _batch
