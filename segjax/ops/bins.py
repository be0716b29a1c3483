"""Means of features over the bins of boxes, by gathering rows of a table of pixels."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from segjax.mapping import join_vmap, map_examples

# Samples of a bin, or pixels under it, that one pass handles along each axis.
_SAMPLES, _PIXELS = 2, 4


class Axis(NamedTuple):
    """Positions of the samples of boxes `[*n]` along one axis, in pixels from the first centre."""

    first: Any  # [*n, out]: first sample of each bin
    step: Any  # [*n, 1]: distance between samples
    samples: Any  # [*n, 1]: samples in a bin
    size: Any  # [*n, 1]: pixels of the feature map


class Regions(NamedTuple):
    """The samples of boxes along both axes, and the widths of their feature maps."""

    y: Axis
    x: Axis
    width: Any  # [*n, 1]: width of the feature map


class Options(NamedTuple):
    """The static options of `roi_align`."""

    ratio: int | None
    method: str


def bin_axis(
    start: jax.Array, side: jax.Array, out: int, size: jax.Array, ratio: int | None
) -> Axis:
    bin_size = side / out
    samples = jnp.full_like(side, ratio) if ratio else jnp.maximum(jnp.ceil(bin_size), 0)
    step = bin_size / jnp.maximum(samples, 1)
    return Axis(start + jnp.arange(out) * bin_size + 0.5 * step, step, samples, size)


def _around(at: jax.Array, size: jax.Array, method: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether samples lie inside, the pixel before each, and the weight of the one after it."""
    # As in torchvision, the value jumps where a sample crosses -1 or `size`, half a pixel beyond
    # the edge of the map. The gradient does not include this jump.
    inside = (at >= -1) & (at <= size)
    at = jnp.clip(at, 0, size - 1)
    if method == "nearest":
        return inside, jnp.floor(at + 0.5), jnp.zeros_like(at)
    low = jnp.floor(at)
    return inside, low, at - low


def _sample_taps(axis: Axis, chunk: Any, method: str, ratio: int) -> tuple[jax.Array, jax.Array]:
    """Pixels around some samples of each bin, and their weights, `[*n, out, taps]`."""
    first, step, _, size = (a[..., None] for a in axis)
    k = chunk * _SAMPLES + jnp.arange(min(_SAMPLES, ratio))
    inside, low, share = _around(first + k * step, size, method)
    weight = jnp.where(inside & (k < ratio), 1 / ratio, 0)
    pixels = jnp.concatenate([low, jnp.minimum(low + 1, size - 1)], axis=-1)
    return pixels, jnp.concatenate([(1 - share) * weight, share * weight], axis=-1)


def _pixel_taps(axis: Axis, chunk: Any, method: str) -> tuple[jax.Array, jax.Array]:
    """Some of the pixels under each bin, and their weights in its mean, `[*n, out, taps]`.

    Samples at most a pixel apart share pixels, so reading each pixel once is less than reading two
    for each sample, and even the largest box has no more pixels than the map.
    """
    pixels = _pixel_range(axis, method)[0][..., None] + chunk * _PIXELS + jnp.arange(_PIXELS)
    # Samples are more than half a pixel apart, or there is one: at most 4 affect a pixel.
    pace = jnp.where(axis.step > 0, axis.step, 1)[..., None]
    k = jnp.ceil((pixels - 1 - axis.first[..., None]) / jax.lax.stop_gradient(pace))
    k = jnp.maximum(k, 0)[..., None] + jnp.arange(4)
    first, step, samples, size = (a[..., None, None] for a in axis)
    inside, low, share = _around(first + k * step, size, method)
    offset = pixels[..., None] - low
    weight = jnp.where(offset == 0, 1 - share, jnp.where(offset == 1, share, 0))
    weight = jnp.where(inside & (k < samples), weight / jnp.maximum(samples, 1), 0)
    return jnp.minimum(pixels, axis.size[..., None] - 1), weight.sum(axis=-1)


def _pixel_range(axis: Axis, method: str) -> tuple[jax.Array, jax.Array]:
    """The first pixel under each bin and their number, `[*n, out]`."""
    last = axis.first + jnp.maximum(axis.samples - 1, 0) * axis.step
    low, high = (_around(at, axis.size, method)[1] for at in (axis.first, last))
    return low, jnp.where(axis.samples > 0, high + 2 - low, 0)


def _taps(
    regions: Regions, offset: jax.Array, chunk: tuple[Any, Any], options: Options
) -> tuple[jax.Array, jax.Array]:
    """Weights and rows of one chunk, `[*n, oh, taps, ow, taps]`."""
    if options.ratio is None:
        along = functools.partial(_pixel_taps, method=options.method)
    else:
        along = functools.partial(_sample_taps, method=options.method, ratio=options.ratio)
    (y, weight_y), (x, weight_x) = map(along, regions[:2], chunk)
    y, x, width = (a.astype(jnp.int32) for a in (y, x, regions.width[..., None]))
    y = offset[..., None, None] + y * width
    down, across = (..., None, None), (..., None, None, slice(None), slice(None))
    return weight_y[down] * weight_x[across], y[down] + x[across]


def _over_chunks(
    add: Callable[[Any, tuple[Any, Any]], Any], total: Any, regions: Regions, options: Options
) -> Any:
    """Applies `total = add(total, chunk)` for every chunk that any of the boxes has."""
    if _has_one_chunk(options):
        return add(total, (0, 0))
    down: Any
    across: Any
    if options.ratio is None:
        pixels = (_pixel_range(axis, options.method)[1] for axis in regions[:2])
        down, across = (jnp.ceil(jnp.max(n, initial=0) / _PIXELS).astype(jnp.int32) for n in pixels)
    else:
        down = across = math.ceil(options.ratio / _SAMPLES)
    return jax.lax.fori_loop(
        0, down * across, lambda i, total: add(total, (i // across, i % across)), total
    )


def _has_one_chunk(options: Options) -> bool:
    return options.ratio is not None and options.ratio <= _SAMPLES


def _with_one_table(function: Callable) -> Callable:
    """`function(rows, offset, …)`, which `vmap` calls once for all boxes, with one joined table.

    Batched loops would scatter into too much memory at once.
    """

    @join_vmap
    def call(rows, offset, *boxes):
        tables, height, _ = rows.shape
        offset += height * jnp.arange(tables, dtype=jnp.int32)[:, None]
        join = lambda x: jax.lax.collapse(x, 0, 2)
        result = function(*jax.tree.map(join, (rows, offset, *boxes)))
        return jax.tree.map(lambda x: x.reshape(tables, len(x) // tables, *x.shape[1:]), result)

    def call_one(*arrays):
        return jax.tree.map(lambda x: x[0], call(*jax.tree.map(lambda x: x[None], arrays)))

    return call_one


def pool_bins(rows: jax.Array, offset: jax.Array, regions: Regions, options: Options) -> jax.Array:
    """`out[n, i, j] = Σ weight·rows[row]` over the taps of bin `(i, j)` of box `n`.

    Args:
      rows: `[m, c]`, pixels of one or several feature maps, row by row; of the dtype of `regions`,
        or boolean if no gradient is needed.
      offset: int32 `[n]`, row of pixel (0, 0) of each box's feature map.
      regions: Samples of the boxes.
      options: Static options.

    Returns:
      `[n, oh, ow, c]`.
    """
    arguments = rows, offset, regions
    # Inside shard_map the carry of a loop must vary over the same devices as what is added to it.
    zero = sum(jnp.zeros_like(array, shape=()) for array in jax.tree.leaves(arguments))
    vary = lambda array: array + jnp.astype(zero, array.dtype)
    return _pool(*jax.tree.map(vary, arguments), options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _pool(rows: jax.Array, offset: jax.Array, regions: Regions, options: Options) -> jax.Array:
    def pool(rows, offset, regions):
        def add(total, chunk):
            weight, row = _taps(regions, offset, chunk, options)
            for a, b in itertools.product(range(row.shape[-3]), range(row.shape[-1])):
                tap = (..., a, slice(None), b)
                total += weight[tap][..., None] * rows.at[row[tap]].get(mode="clip")
            return total

        shape = (*regions.y.first.shape, regions.x.first.shape[-1], rows.shape[-1])
        total = jnp.zeros_like(rows, regions.y.first.dtype, shape=shape)
        return _over_chunks(add, total, regions, options)

    @_with_one_table
    def pool_all(rows, *boxes):
        pool_boxes = functools.partial(pool, rows)
        if _has_one_chunk(options):
            return pool_boxes(*boxes)
        return map_examples(pool_boxes, *boxes, together=pool_boxes)

    return pool_all(rows, offset, regions)


def _pool_forward(
    rows: jax.Array, offset: jax.Array, regions: Regions, options: Options
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Regions]]:
    return _pool(rows, offset, regions, options), (rows, offset, regions)


def _pool_backward(
    options: Options, residuals: tuple[jax.Array, jax.Array, Regions], cotangent: jax.Array
) -> tuple[jax.Array, None, Regions]:
    def spread(total, rows, offset, regions, cotangent):
        """`total` plus the gradient of the rows, and the gradient of the regions."""
        cotangent = cotangent[..., :, None, :, None, :]

        def add(total, chunk):
            by_rows, by_regions = total
            taps = functools.partial(_taps, offset=offset, chunk=chunk, options=options)
            weight, pull, row = jax.vjp(taps, regions, has_aux=True)
            by_rows = by_rows.at[row].add(weight[..., None] * cotangent, mode="clip")
            by_weight = jnp.sum(rows.at[row].get(mode="clip") * cotangent, axis=-1)
            return by_rows, jax.tree.map(jnp.add, by_regions, *pull(by_weight))

        zeros = jax.tree.map(jnp.zeros_like, regions)
        return _over_chunks(add, (total, zeros), regions, options)

    def one_by_one(total, rows, *boxes):
        return jax.lax.scan(lambda total, box: spread(total, rows, *box), total, boxes)

    @_with_one_table
    def spread_all(rows, *boxes):
        # On a CPU one scatter of all boxes takes many times as long as one for each box.
        return jax.lax.platform_dependent(
            jnp.zeros_like(rows), rows, *boxes, cpu=one_by_one, default=spread
        )

    by_rows, by_regions = spread_all(*residuals, cotangent)
    return by_rows, None, by_regions


_pool.defvjp(_pool_forward, _pool_backward)
