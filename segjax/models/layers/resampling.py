"""Resampling by integer factors, with fast gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.models.layers.canvas import Extent


def depth_to_space(
    x: Float[jax.Array, "..."], factor: int, dimensions: int
) -> Float[jax.Array, "..."]:
    """Rearranges `[*b, *spatial, f^d * c]` to `[*b, *(f * spatial), c]`."""
    lead, spatial = x.shape[: -1 - dimensions], x.shape[-1 - dimensions : -1]
    x = x.reshape(*lead, *spatial, *[factor] * dimensions, x.shape[-1] // factor**dimensions)
    first = len(lead)
    pairs = [axis for d in range(dimensions) for axis in (first + d, first + dimensions + d)]
    x = x.transpose(*range(first), *pairs, x.ndim - 1)
    return x.reshape(*lead, *[factor * s for s in spatial], x.shape[-1])


def space_to_depth(
    x: Float[jax.Array, "..."], factor: int, dimensions: int
) -> Float[jax.Array, "..."]:
    """The inverse of `depth_to_space`; `factor` must divide the sizes of the spatial axes."""
    lead, spatial = x.shape[: -1 - dimensions], x.shape[-1 - dimensions : -1]
    blocks = [size for s in spatial for size in (s // factor, factor)]
    x = x.reshape(*lead, *blocks, x.shape[-1])
    first = len(lead)
    outer, inner = (range(first + i, first + 2 * dimensions, 2) for i in (0, 1))
    x = x.transpose(*range(first), *outer, *inner, x.ndim - 1)
    return x.reshape(*lead, *[s // factor for s in spatial], factor**dimensions * x.shape[-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_pool_2x(x: Float[jax.Array, "..."], dimensions: int) -> Float[jax.Array, "..."]:
    """Max pooling by 2 along each of the last `dimensions` axes, whose sizes must be even.

    Values that equal the maximum of their block share its gradient equally. On a CPU this gradient
    is many times faster than that of `reduce_window`, and twice as fast as that of slices.
    """
    return functools.reduce(jnp.maximum, _corners(x, dimensions))


@max_pool_2x.defjvp
def _max_pool_2x_jvp(dimensions, primals, tangents):
    (x,), (tangent,) = primals, tangents
    y = max_pool_2x(x, dimensions)
    equals = sum((corner == y).astype(x.dtype) for corner in _corners(x, dimensions))
    lead, spatial = x.shape[: -1 - dimensions], x.shape[-1 - dimensions : -1]
    blocks = (*lead, *[size for s in spatial for size in (s // 2, 2)], x.shape[-1])
    axes = tuple(range(len(lead) + 1, len(lead) + 2 * dimensions, 2))
    is_maximum = x.reshape(blocks) == jnp.expand_dims(y, axes)
    return y, jnp.sum(jnp.where(is_maximum, tangent.reshape(blocks), 0), axes) / equals


def _corners(x: jax.Array, dimensions: int) -> list[jax.Array]:
    """The pixels of all blocks of 2 along each spatial axis, by their position in the block."""
    places = itertools.product((0, 1), repeat=dimensions)
    return [x[(..., *[slice(k, None, 2) for k in place], slice(None))] for place in places]


def upsample_linear_2x(x: Float[jax.Array, "..."], dimensions: int) -> Float[jax.Array, "..."]:
    """(Bi-, tri-)linear upsampling by 2 of the last `dimensions` axes, with aligned corners.

    Output `j` of `n` inputs lies at `j (n − 1) / (2n − 1)`: each input has one output at most half
    a pixel before it, and one after it. So the result is two sums of shifted inputs, and so is the
    gradient.
    """
    extent = Extent()(x)
    for i, axis in enumerate(range(x.ndim - 1 - dimensions, x.ndim - 1)):
        size = x.shape[axis]
        n: int | jax.Array = size
        if extent is not None:
            n = jnp.expand_dims(extent[..., i], tuple(range(extent.ndim - 1, x.ndim)))
        first, last = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, size - 1))
        before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
        place = jnp.arange(size).reshape(-1, *[1] * (x.ndim - 1 - axis))
        back, ahead = ((d / (2 * n - 1)).astype(x.dtype) for d in (place, n - 1 - place))
        phases = [x + back * (before - x), x + ahead * (after - x)]
        x = jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def pad_to_multiple(
    x: Float[jax.Array, "..."], multiple: int, dimensions: int, *, mode: str = "edge"
) -> Float[jax.Array, "..."]:
    """Pads the end of each spatial axis to a multiple of `multiple`.

    `mode` is as in `jnp.pad`: "edge" repeats the border, "constant" adds zeros.
    """
    spatial = x.shape[-1 - dimensions : -1]
    lead = [(0, 0)] * (x.ndim - 1 - dimensions)
    return jnp.pad(x, [*lead, *[(0, -s % multiple) for s in spatial], (0, 0)], mode=mode)


def max_pool(
    x: Float[jax.Array, "*b h w c"], size: int, stride: int, padding: int
) -> Float[jax.Array, "*b new_h new_w c"]:
    """Max pooling over `size`×`size` windows; padding is −∞.

    Computed as a maximum of shifted images, since the gradient of `reduce_window` is slow on a CPU.
    """
    for axis in (-3, -2):
        length = x.shape[axis]
        widths = [(0, 0)] * x.ndim
        widths[axis] = (padding, padding)
        padded = jnp.pad(x, widths, constant_values=-jnp.inf)
        outputs = (length + 2 * padding - size) // stride + 1
        shifted = [
            jax.lax.slice_in_dim(
                padded, k, k + stride * (outputs - 1) + 1, stride, axis=axis % x.ndim
            )
            for k in range(size)
        ]
        x = functools.reduce(jnp.maximum, shifted)
    return x
