"""Forms of a convolution and its gradients, and the choice among them on a CPU.

XLA's own convolutions are fast on GPU and TPU. On a CPU some are many times slower than necessary,
most of all the gradients; other forms of the same sums replace them there.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from segjax.numerics import accumulation_dtype

Role = Literal["image", "kernel", "output"]
ROLES: tuple[Role, ...] = ("image", "kernel", "output")


def project(
    x: Float[jax.Array, "*b c"], kernel: Float[jax.Array, "c o"]
) -> Float[jax.Array, "*b o"]:
    """The product over the last axis, `x @ kernel`, as one product of two matrices.

    Its gradient by the kernel is then also a product of two matrices, for which a CPU does not copy
    and transpose.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


class Geometry(NamedTuple):
    """The shape of a convolution: along each axis output i has pixel `s i + d k − p` at tap k."""

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

    @property
    def pitch(self) -> tuple[int, ...]:
        """The size of each axis of the padded image, in strides; neighbours share the padding."""
        return tuple(
            max(o, -(-(n + self.padding) // self.stride))
            for n, o in zip(self.image_size, self.output_size, strict=True)
        )

    def taps(self) -> Iterator[tuple[int, ...]]:
        """The positions in the kernel."""
        return itertools.product(*map(range, self.kernel_size))


def _shape(role: Role, a: Any, b: Any, geometry: Geometry) -> tuple[int, ...]:
    """The shape of the operand `role`, given the other two."""
    if role == "output":
        return (a.shape[0], *geometry.output_size, geometry.features)
    if role == "kernel":
        channels = geometry.channels // geometry.groups
        return (*geometry.kernel_size, channels, geometry.features)
    return (b.shape[0], *geometry.image_size, geometry.channels)


def result_type(a: Any, b: Any, *, role: Role, geometry: Geometry) -> Any:
    """The type of the operand `role`: that of `a`, with another shape."""
    return a.update(shape=_shape(role, a, b, geometry))


def library_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
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
    # Of the same type as `a`, which in shard_map includes the devices over which it varies.
    result = result_type(jax.typeof(a), b, role=role, geometry=geometry)
    if role == "image":
        return jax.linear_transpose(lambda image: convolution(image, a), result)(b)[0]
    return jax.linear_transpose(lambda kernel: convolution(a, kernel), result)(b)[0]


def cpu_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
    """The form that is fastest on a CPU."""
    dtype = accumulation_dtype(a)
    form = fastest_form(role, geometry)
    result = form(a.astype(dtype), b.astype(dtype), role=role, geometry=geometry)
    return result.astype(a.dtype)


def fastest_form(role: Role, geometry: Geometry) -> Callable[..., jax.Array]:
    """The choice of `cpu_form`, as measured by `experiments/benchmarks/convolution.py`.

    Last measured with jaxlib 0.10.2, on two cores with AVX-512.
    """
    if geometry.groups > 1:
        is_depthwise = geometry.groups == geometry.channels == geometry.features
        return _depthwise_form if is_depthwise else library_form
    inside = _share_inside(geometry)
    saves_products = inside < 0.8 if geometry.dilation > 1 else role == "image" and inside < 0.85
    if max(geometry.kernel_size) == 1 or saves_products:
        return _cropped_form
    if role == "kernel":
        is_slow = geometry.features < 32 or len(geometry.kernel_size) == 3
        return _blocked_form if is_slow and geometry.dilation == 1 else _turned_form
    is_overlapping = geometry.stride < min(geometry.kernel_size)
    return _turned_form if role == "image" and is_overlapping else library_form


def _turned_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
    """A gradient as XLA's convolution of operands that are transposed beforehand.

    In a loop, XLA computes a convolution tens of times as slowly if it has to permute its operands.
    """
    dimensions, pad = len(geometry.kernel_size), geometry.padding
    if role == "image":
        image, kernel = b, jnp.flip(a, range(dimensions)).swapaxes(-2, -1)
        steps, image_dilation, kernel_dilation = 1, geometry.stride, geometry.dilation
        sizes = geometry.image_size, geometry.kernel_size, geometry.output_size
        margins = []
        for n, k, o in zip(*sizes, strict=True):
            reach = geometry.dilation * (k - 1)
            margins.append((reach - pad, n + pad - (geometry.stride * (o - 1) + 1)))
    else:
        image, kernel = a.swapaxes(0, -1), jnp.moveaxis(b, 0, -2)
        steps, image_dilation, kernel_dilation = geometry.dilation, 1, geometry.stride
        margins = [(pad, pad)] * dimensions
    image, kernel = lax.optimization_barrier((image, kernel))
    axes = "DHW"[-dimensions:]
    y = lax.conv_general_dilated(
        image,
        kernel,
        (steps,) * dimensions,
        margins,
        lhs_dilation=(image_dilation,) * dimensions,
        rhs_dilation=(kernel_dilation,) * dimensions,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )
    if role == "image":
        return y
    return jnp.moveaxis(y[(slice(None), *map(slice, geometry.kernel_size))], 0, -2)


# Numbers that a product of `_blocked_form` reads, so that they stay in a CPU's cache.
_BLOCK = 2**20


def _blocked_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
    """The gradient by the kernel: a product of matrices for a block of pixels at a time.

    Output i sees pixel `s i + k` of the padded image at tap `k = s m + r`: number `i + m` of the
    pixels with remainder r. With all rows of all images in one sequence, that pixel is the same
    number of places further on for every i. For the taps along the last axes, the pixels are copied
    with that shift; for those along the first axis, the gradients are copied with the opposite
    shift, once for each m. For a 3x3 kernel, three copies by three give the nine taps.
    """
    (taps, *taps_across), (_, *pitch_across) = geometry.kernel_size, geometry.pitch
    stride, features, shifts = geometry.stride, geometry.features, -(-taps // geometry.stride)
    channels = stride * geometry.channels
    image, output = _in_a_row(a, b, geometry)

    # Row and column at which each copy starts.
    copies = []
    for tap in itertools.product(*map(range, taps_across)):
        place = remainder = 0
        for k, p in zip(tap, pitch_across, strict=True):
            place = p * place + k // stride
            remainder = stride * remainder + k % stride
        copies.append((place, channels * remainder))
    line = math.prod(pitch_across)
    delayed = [(line * m, 0) for m in reversed(range(shifts))]

    length = len(image) + line * (shifts - 1)
    columns = max(len(copies) * channels, len(delayed) * features)
    blocks = max(-(-length * columns // _BLOCK), 1)
    rows = -(-length // blocks)
    excess = rows * blocks - len(image)
    image = jnp.pad(image, [(0, excess + max(copies)[0]), (0, 0)])
    output = jnp.pad(output, [(line * (shifts - 1), excess), (0, 0)])

    # A product of rows by columns is fastest, so the narrower matrix is transposed.
    first, second = (image, copies, channels), (output, delayed, features)
    if is_swapped := image.shape[1] > features:
        first, second = second, first
    (x, x_starts, height), (y, y_starts, width) = first, second
    x = x.T

    def add_block(total, start):
        x_copies = [lax.dynamic_slice(x, (j, start + i), (height, rows)) for i, j in x_starts]
        y_copies = [lax.dynamic_slice(y, (start + i, j), (rows, width)) for i, j in y_starts]
        # Stacked, since XLA would copy each of them twice to concatenate along the last axis.
        x_stack, y_stack = jnp.stack(x_copies), jnp.stack(y_copies, axis=1)
        return total + x_stack.reshape(-1, rows) @ y_stack.reshape(rows, -1), None

    total = jnp.zeros_like(a, shape=(len(x_starts) * height, len(y_starts) * width))
    total, _ = lax.scan(add_block, total, rows * jnp.arange(blocks))
    total = total.T if is_swapped else total
    total = total.reshape(*taps_across, stride, geometry.channels, shifts, features)
    return lax.collapse(jnp.moveaxis(total, (-2, -4), (0, 1)), 0, 2)[:taps]


def _in_a_row(
    image: jax.Array, output: jax.Array, geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    """Image and output as sequences of places: `[n, s^d channels]` and `[n, features]`.

    A place has a pixel for each remainder, with that of the first axis last. The output is 0 at
    places without one.
    """
    stride, pitch, pad = geometry.stride, geometry.pitch, geometry.padding
    axes = len(pitch)
    margins = [
        (pad, stride * p - pad - n, 0) for p, n in zip(pitch, geometry.image_size, strict=True)
    ]
    image = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    image = image.reshape(-1, *itertools.chain(*((p, stride) for p in pitch)), geometry.channels)
    places, remainders = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
    image = image.transpose(0, *places, *remainders[1:], remainders[0], 2 * axes + 1)
    beyond = [(0, p - o) for p, o in zip(pitch, geometry.output_size, strict=True)]
    output = jnp.pad(output, [(0, 0), *beyond, (0, 0)]).reshape(-1, geometry.features)
    return image.reshape(-1, stride**axes * geometry.channels), output


def _depthwise_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
    """A depthwise convolution as a sum of shifted products."""
    if role == "kernel":
        return _depthwise_kernel(a, b, geometry)
    if role == "image":
        return _depthwise_form(**_turned(a, b, geometry), role="output")

    dimensions = len(geometry.kernel_size)
    border = [(0, 0), *[(geometry.padding, geometry.padding)] * dimensions, (0, 0)]
    # The barrier makes XLA pad once instead of for each tap.
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


# XLA copies what it sums over pixels, the products of pixels and gradients for each tap. With bands
# of rows added first, the copy is a sixteenth as large. With fewer bands, XLA was seen to copy each
# of them, which is several times as slow.
_BANDS = 16


def _depthwise_kernel(a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
    """The gradient by the kernel: for each tap, the sum of products of pixels and gradients."""
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

    def kernel_row(row):
        seen = lax.dynamic_slice_in_dim(image, dilation * row, seen_rows, 1)

        def product(tap, first):
            start = (0, stride * first, *[dilation * k for k in tap], 0)
            size = (band, *across)
            stop = [s + stride * (n - 1) + 1 for s, n in zip(start[1:], size, strict=False)]
            pixels = lax.slice(seen, start, (len(a), *stop, a.shape[-1]), strides)
            return pixels * lax.slice_in_dim(output, first, first + band, axis=1)

        def tap_sums(tap):
            return functools.reduce(jnp.add, (product(tap, i * band) for i in range(_BANDS)))

        return [tap_sums(tap) for tap in itertools.product(*map(range, taps_across))]

    axes = range(1, output.ndim)
    gradients = [jnp.sum(x, axes) for x in lax.map(kernel_row, jnp.arange(taps))]
    return jnp.stack(gradients, axis=1).reshape(_shape("kernel", a, b, geometry))


def _turned(kernel: jax.Array, output: jax.Array, geometry: Geometry) -> dict:
    """The operands of the depthwise convolution that is the gradient by the image.

    They are the gradient by the output, spread out by the stride, and the flipped kernel.
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


def _cropped_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
    """A matrix product for each tap, of the pixels that it sees inside the image."""
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


def _span(axis: int, tap: int, geometry: Geometry) -> tuple[int, int, int]:
    """Along an axis: the first pixel that a tap sees, its output, and the number of such pixels."""
    offset = geometry.dilation * tap - geometry.padding
    first = max(0, -(offset // geometry.stride))
    last = (geometry.image_size[axis] - 1 - offset) // geometry.stride
    count = min(last, geometry.output_size[axis] - 1) - first + 1
    return geometry.stride * first + offset, first, count


def _share_inside(geometry: Geometry) -> float:
    """The share of a convolution's products whose pixel lies inside the image."""
    share = 1.0
    for axis, taps in enumerate(geometry.kernel_size):
        counts = [max(_span(axis, tap, geometry)[2], 0) for tap in range(taps)]
        share *= sum(counts) / (taps * geometry.output_size[axis])
    return share


def _matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])
