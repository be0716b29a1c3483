"""The sums of a convolution, and of its gradients, in the form that is fast.

XLA's convolutions are what they should be on GPU and TPU. On a CPU some are many times slower than
need be, most of all the gradients; there other forms of the same sums stand in for them.
"""

import functools
import itertools
import math
import os
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
    """The matrix product over the last axis, `x @ kernel`, as one product of two matrices.

    In two dimensions the gradient of the kernel is a product of matrices too; over more axes a CPU
    would copy and transpose for it.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


class Geometry(NamedTuple):
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

    @property
    def pitch(self) -> tuple[int, ...]:
        """Along each axis, in strides: from an image's row to the next one, if the zeros in between
        serve both.
        """
        return tuple(
            max(o, -(-(n + self.padding) // self.stride))
            for n, o in zip(self.image_size, self.output_size, strict=True)
        )

    def taps(self) -> Iterator[tuple[int, ...]]:
        """The kernel's positions."""
        return itertools.product(*map(range, self.kernel_size))


def _shape(role: Role, a: Any, b: Any, geometry: Geometry) -> tuple[int, ...]:
    """The shape of what plays `role`, the other two being given."""
    if role == "output":
        return (a.shape[0], *geometry.output_size, geometry.features)
    if role == "kernel":
        channels = geometry.channels // geometry.groups
        return (*geometry.kernel_size, channels, geometry.features)
    return (b.shape[0], *geometry.image_size, geometry.channels)


def result_type(a: Any, b: Any, *, role: Role, geometry: Geometry) -> Any:
    """The type of what plays `role`: `a`'s, of another shape."""
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
    # Of the same type as `a`, which in shard_map tells the devices over which it varies.
    result = result_type(jax.typeof(a), b, role=role, geometry=geometry)
    if role == "image":
        return jax.linear_transpose(lambda image: convolution(image, a), result)(b)[0]
    return jax.linear_transpose(lambda kernel: convolution(a, kernel), result)(b)[0]


def cpu_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
    """The form that is fastest on a CPU."""
    form = fastest_form(role, geometry)
    if form is library_form:
        return form(a, b, role=role, geometry=geometry)
    dtype = accumulation_dtype(a)
    result = form(a.astype(dtype), b.astype(dtype), role=role, geometry=geometry)
    return result.astype(a.dtype)


def fastest_form(role: Role, geometry: Geometry) -> Callable[..., jax.Array]:
    if geometry.groups > 1:
        is_depthwise = geometry.groups == geometry.channels == geometry.features
        return _depthwise_form if is_depthwise else library_form
    if geometry.dilation > 1 or max(geometry.kernel_size) == 1:
        return _cropped_form
    if role == "kernel":
        return _blocked_form
    return _unstrided_form if geometry.stride == 1 else library_form


def _unstrided_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
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
    # XLA has two libraries for planes on a CPU. The one that it prefers is up to twice as fast per
    # thread, but takes no convolution whose output is larger than its image: so rows are added
    # where it would leave half of the threads idle.
    tasks = _tasks(size[-1], kernel.shape[-1], math.prod(kernel.shape[:-1]))
    is_idle = dimensions == 2 and 2 * tasks <= _threads()
    excess = max(image.shape[1] - size[0], 0) + 1 if is_idle else 0
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


def _tasks(width: int, features: int, products: int) -> int:
    """To how many threads XLA's library YNNPACK deals out a convolution of planes.

    It is parts of a row of `width` pixels by parts of the features, and no more of them than are
    worth a task by the number of products for an output; rows and examples are not dealt out.
    """
    pixels, columns = min(width, 16), min(features, 64)
    least = min(width, 64) * min(features, 64)
    while pixels * columns < least or (pixels + columns) * min(products, 1024) < 2**16:
        if columns < features and pixels >= min(width, 4 * columns):
            columns *= 2
        elif pixels < width:
            pixels *= 2
        else:
            break
    return -(-width // pixels) * -(-features // columns)


def _threads() -> int:
    """How many threads XLA has on this machine's CPU."""
    is_known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if is_known else os.cpu_count() or 1


# Of what a product of `_blocked_form` reads, so that it stays in a CPU's cache.
_BLOCK = 2**20


def _blocked_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
    """The gradient by the kernel: a product of matrices for some pixels at a time.

    Output i sees pixel `s i + k` of the padded image at tap `k = s m + r`: of the pixels that leave
    the remainder r, number `i + m`. With all rows of all images one behind the other that is, for
    every i, the same number of places further on. Across the image, each tap takes a copy of the
    pixels from there on; down it, the gradients are delayed as much, a copy for each m: of a 3x3
    kernel three copies by three are the nine taps.
    """
    (taps, *taps_across), (_, *pitch_across) = geometry.kernel_size, geometry.pitch
    stride, features, shifts = geometry.stride, geometry.features, -(-taps // geometry.stride)
    channels = stride * geometry.channels
    image, output = _in_a_row(a, b, geometry)

    # Where copies begin: at which place and in which column.
    seen = []
    for tap in itertools.product(*map(range, taps_across)):
        place = remainder = 0
        for k, p in zip(tap, pitch_across, strict=True):
            place = p * place + k // stride
            remainder = stride * remainder + k % stride
        seen.append((place, channels * remainder))
    line = math.prod(pitch_across)
    delayed = [(line * m, 0) for m in reversed(range(shifts))]

    length = len(image) + line * (shifts - 1)
    columns = max(len(seen) * channels, len(delayed) * features)
    blocks = max(-(-length * columns // _BLOCK), 1)
    rows = -(-length // blocks)
    excess = rows * blocks - len(image)
    image = jnp.pad(image, [(0, excess + max(seen)[0]), (0, 0)])
    output = jnp.pad(output, [(line * (shifts - 1), excess), (0, 0)])

    # Only a product of rows by columns is fast: so one matrix is turned, the narrower.
    first, second = (image, seen, channels), (output, delayed, features)
    if is_swapped := image.shape[1] > features:
        first, second = second, first
    (x, x_starts, height), (y, y_starts, width) = first, second
    x = x.T

    def add_block(total, start):
        x_copies = [lax.dynamic_slice(x, (j, start + i), (height, rows)) for i, j in x_starts]
        y_copies = [lax.dynamic_slice(y, (start + i, j), (rows, width)) for i, j in y_starts]
        # Stacked, as along the last axis XLA would copy each of them twice.
        x_copies, y_copies = jnp.stack(x_copies), jnp.stack(y_copies, axis=1)
        return total + x_copies.reshape(-1, rows) @ y_copies.reshape(rows, -1), None

    total = jnp.zeros_like(a, shape=(len(x_starts) * height, len(y_starts) * width))
    total, _ = lax.scan(add_block, total, rows * jnp.arange(blocks))
    total = total.T if is_swapped else total
    total = total.reshape(*taps_across, stride, geometry.channels, shifts, features)
    return lax.collapse(jnp.moveaxis(total, (-2, -4), (0, 1)), 0, 2)[:taps]


def _in_a_row(
    image: jax.Array, output: jax.Array, geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    """All places, one behind the other: `[n, s^d channels]` and `[n, features]`.

    A place has a pixel for each remainder, of the first axis within those of the others. At places
    without an output that is 0.
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


def _depthwise_kernel(a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
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


def _turned(kernel: jax.Array, output: jax.Array, geometry: Geometry) -> dict:
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


def _cropped_form(a: jax.Array, b: jax.Array, *, role: Role, geometry: Geometry) -> jax.Array:
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


def _span(axis: int, tap: int, geometry: Geometry) -> tuple[int, int, int]:
    """Along an axis: the first pixel a tap sees, which output sees it there, and how many do."""
    offset = geometry.dilation * tap - geometry.padding
    first = max(0, -(offset // geometry.stride))
    last = (geometry.image_size[axis] - 1 - offset) // geometry.stride
    count = min(last, geometry.output_size[axis] - 1) - first + 1
    return geometry.stride * first + offset, first, count


def _matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])
