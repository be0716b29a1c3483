"""What is inside boxes: ROIAlign on one feature map, on a pyramid of them, and on masks."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from segjax.numerics import accumulation_dtype
from segjax.ops.bins import Options, Regions, bin_axis, pool_bins
from segjax.ops.boxes import box_area
from segjax.typing import Array


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "n 4"],
    output_size: tuple[int, int],
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int | None = 2,
    aligned: bool = True,
    method: str = "bilinear",
) -> Float[jax.Array, "n oh ow c"]:
    """The features inside each box, on a grid of one size for all: ROIAlign.

    A box is cut into `oh × ow` bins, and `out[i, j]` is the mean of the features at `ry × rx`
    points of bin `(i, j)`: in x, with `r` for `rx`, at `x0 + (k + ½)·(x1 − x0)/(r·ow)` for
    `k = r·j … r·j + r − 1`. With the values of `torchvision.ops.roi_align`, and differentiable in
    features and boxes (in reverse mode, once).

    Args:
      features: `[h, w, c]`, floating.
      boxes: `[n, 4]`, xyxy in continuous pixels of the image.
      output_size: (oh, ow), static.
      spatial_scale: pixels of `features` for a pixel of the image: 1/stride.
      sampling_ratio: `r`, static; None takes as many points as make their distance in a bin one
        pixel at most, `⌈side/out⌉`, for each box and axis by itself.
      aligned: False for the convention of 2017: features lie half a pixel further right and
        down than here, and a side below one pixel counts as one.
      method: how features between pixels are found, "bilinear" or "nearest".

    Returns:
      `[n, oh, ow, c]` in the dtype of `features`; computed in at least float32. A point up to a
      pixel beyond the centres of the border pixels has their features, one further out 0. A box
      whose sides are swapped is read backwards; with `sampling_ratio=None` it gives 0, as does one
      without area. A box that is not finite gives NaN, and has no part in any gradient.

    Raises:
      ValueError: if the shapes are wrong, or an option's value is none of those named.
      TypeError: if `features` or `boxes` is not floating.

    Example:
      >>> ramp = jnp.arange(4.0)[None, :, None] * jnp.ones((4, 1, 1))
      >>> roi_align(ramp, jnp.array([[1.0, 1.0, 3.0, 3.0]]), (1, 2))[0, 0, :, 0]
      Array([1., 2.], dtype=float32)

    References:
      He et al., "Mask R-CNN", 2017, section 3.
    """
    return _roi_align(
        [features],
        boxes,
        jnp.zeros(boxes.shape[:1], jnp.int32),
        output_size,
        scales=jnp.asarray([spatial_scale]),
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        method=method,
    )


def multilevel_roi_align(
    features: Sequence[Float[Array, "_ _ c"]],
    boxes: Float[Array, "n 4"],
    output_size: tuple[int, int],
    *,
    min_level: int = 2,
    sampling_ratio: int | None = 2,
    aligned: bool = True,
    method: str = "bilinear",
    canonical_level: int = 4,
    canonical_size: float = 224.0,
    sizes: Int[Array, "levels 2"] | None = None,
) -> Float[jax.Array, "n oh ow c"]:
    """ROIAlign on a feature pyramid: of each box at the level that fits its size.

    Args:
      features: the levels, finest first: `[h, w, c]` each, one pixel of which is
        `2^min_level`, `2^(min_level + 1)` … pixels of the image.
      boxes: `[n, 4]`, xyxy in continuous pixels of the image.
      output_size: (oh, ow), static.
      min_level: the finest level.
      sampling_ratio: as of `roi_align`.
      aligned: as of `roi_align`.
      method: as of `roi_align`.
      canonical_level: as of `assign_levels`.
      canonical_size: as of `assign_levels`.
      sizes: `[levels, 2]`, (rows, columns) of each level that are the image's, where it lies at the
        top left of a canvas; None for all.

    Returns:
      `[n, oh, ow, c]` in the dtype of the features; as of `roi_align`.

    Raises:
      ValueError: if the shapes are wrong, or an option's value is none of those named.
      TypeError: if `features` or `boxes` is not floating.

    Example:
      >>> pyramid = [jnp.full((8, 8, 1), 2.0), jnp.full((4, 4, 1), 3.0)]
      >>> boxes = jnp.array([[0.0, 0.0, 9.0, 9.0], [-99.0, -99.0, 120.0, 120.0]])
      >>> multilevel_roi_align(pyramid, boxes, (1, 1), sampling_ratio=1)[:, 0, 0, 0]
      Array([2., 3.], dtype=float32)

    References:
      Lin et al., "Feature pyramid networks for object detection", 2017, section 4.2.
    """
    if len(features) == 0:
        raise ValueError("features is empty; due is at least one level")
    levels = assign_levels(
        boxes,
        min_level=min_level,
        max_level=min_level + len(features) - 1,
        canonical_level=canonical_level,
        canonical_size=canonical_size,
    )
    return _roi_align(
        features,
        boxes,
        levels - min_level,
        output_size,
        scales=0.5 ** (min_level + jnp.arange(len(features))),
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        method=method,
        sizes=sizes,
    )


def roi_pool(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "n 4"],
    output_size: tuple[int, int],
    *,
    spatial_scale: float = 1.0,
) -> Float[jax.Array, "n oh ow c"]:
    """The greatest features of each part of a box: ROI pooling, which ROIAlign replaced.

    A box is rounded to whole pixels, both ends included, and cut into `oh × ow` bins, themselves
    rounded outward; `out[i, j]` is the maximum over the pixels of bin `(i, j)`. With the values of
    `torchvision.ops.roi_pool`.

    Args:
      features: `[h, w, c]`, floating.
      boxes: `[n, 4]`, xyxy in continuous pixels of the image.
      output_size: (oh, ow), static.
      spatial_scale: pixels of `features` for a pixel of the image: 1/stride.

    Returns:
      `[n, oh, ow, c]` in the dtype of `features`: 0 for a bin outside of the map, and NaN for a box
      that is not finite. No gradient flows to the boxes; equal maxima share theirs.

    Raises:
      ValueError: if the shapes are wrong.
      TypeError: if `features` or `boxes` is not floating.

    Example:
      >>> ramp = jnp.arange(4.0)[None, :, None] * jnp.ones((4, 1, 1))
      >>> roi_pool(ramp, jnp.array([[0.0, 0.0, 3.0, 3.0]]), (1, 2))[0, 0, :, 0]
      Array([1., 3.], dtype=float32)

    References:
      Girshick, "Fast R-CNN", 2015, section 2.1.
    """
    _check([features], boxes, output_size)
    features = jnp.asarray(features)
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, accumulation_dtype(boxes)))
    known = jnp.isfinite(boxes).all(axis=1)
    boxes = jnp.where(known[:, None], boxes, 0) * spatial_scale
    corners = jnp.sign(boxes) * jnp.floor(jnp.abs(boxes) + 0.5)  # halves away from 0

    def members(start, end, bins, pixels):
        """`[bins, pixels]`: which pixels of an axis each bin has."""
        size = jnp.maximum(end - start + 1, 1) / bins
        edges = jnp.arange(bins + 1) * size
        first, last = start + jnp.floor(edges[:-1]), start + jnp.ceil(edges[1:])
        pixel = jnp.arange(pixels)
        return (pixel >= first[:, None]) & (pixel < last[:, None])

    def pool(box):
        left, top, right, bottom = box
        rows = members(top, bottom, output_size[0], features.shape[0])
        columns = members(left, right, output_size[1], features.shape[1])
        across = _masked_max(features[:, None], columns[:, :, None])  # [h, ow, c]
        pooled = _masked_max(across, rows[:, :, None, None], axis=1)
        some = rows.any(1)[:, None] & columns.any(1)
        return jnp.where(some[..., None], pooled, 0)

    pooled = jax.lax.map(pool, corners)
    return jnp.where(known[:, None, None, None], pooled, jnp.nan)


def _masked_max(values: jax.Array, where: jax.Array, *, axis: int = -2) -> jax.Array:
    return jnp.max(jnp.where(where, values, -jnp.inf), axis=axis)


def assign_levels(
    boxes: Float[Array, "*n 4"],
    *,
    min_level: int = 2,
    max_level: int = 5,
    canonical_level: int = 4,
    canonical_size: float = 224.0,
) -> Int[jax.Array, "*n"]:
    """The pyramid level of a box by its size: `⌊k₀ + log₂(√area/s₀)⌋`, within the levels there are.

    Args:
      boxes: `[*n, 4]`, xyxy in pixels of the image.
      min_level: the finest level, for all smaller boxes and those without area too.
      max_level: the coarsest level, for all larger ones.
      canonical_level: `k₀`, that of boxes of the canonical size.
      canonical_size: `s₀`, in pixels: the side of the pictures that backbones are pretrained on.

    Returns:
      int32 `[*n]`.

    Raises:
      ValueError: if the last axis of `boxes` is not 4 long, or `max_level` below `min_level`.

    Example:
      >>> sides = jnp.array([10.0, 111.0, 112.0, 224.0, 1000.0])
      >>> assign_levels(jnp.stack([0 * sides, 0 * sides, sides, sides], axis=-1))
      Array([2, 2, 3, 4, 5], dtype=int32)

    References:
      Lin et al., "Feature pyramid networks for object detection", 2017, eq. 1.
    """
    if max_level < min_level:
        raise ValueError(f"max_level is {max_level}; due is at least min_level, {min_level}")
    # Compared with each level's least area: a logarithm would round at the very border.
    levels = range(min_level + 1, max_level + 1)
    least = [(canonical_size * 2.0 ** (level - canonical_level)) ** 2 for level in levels]
    area = box_area(boxes)
    reached = area[..., None] >= jnp.asarray(least, area.dtype)
    return min_level + jnp.sum(reached, axis=-1, dtype=jnp.int32)


def crop_masks(
    masks: Bool[Array, "n h w"],
    boxes: Float[Array, "p 4"],
    mask_of: Integer[Array, " p"],
    output_size: tuple[int, int],
) -> Float[jax.Array, "p oh ow"]:
    """What of each box belongs to its mask: the share of every bin, as a mask head is to say.

    ROIAlign of the mask alone, with the half pixel of 2017 and as many samples as a bin has pixels.
    Other masks are not read, so many of them cost no more time than one.

    Args:
      masks: `[n, h, w]`.
      boxes: `[p, 4]`, xyxy in pixels, inside the image; a side below one pixel counts as one.
      mask_of: `[p]`, of each box its mask, in 0..n−1; what is beyond is the nearest of these.
      output_size: (oh, ow), static.

    Returns:
      `[p, oh, ow]`, in 0..1, a constant for gradients; 0 where there is no mask at all.

    Raises:
      ValueError: if the shapes are wrong.

    Example:
      >>> masks = jnp.array([[[True, True, False, False]] * 4, [[False] * 4] * 4])
      >>> boxes = jnp.array([[0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 3.0, 3.0]])
      >>> crop_masks(masks, boxes, jnp.array([0, 1]), (1, 3)).round(2)[:, 0]
      Array([[1. , 0.5, 0. ],
             [0. , 0. , 0. ]], dtype=float32)

    References:
      He et al., "Mask R-CNN", 2017, section 3.1; torchvision's targets.
    """
    if masks.ndim != 3 or boxes.shape != (*mask_of.shape, 4) or mask_of.ndim != 1:
        raise ValueError(
            f"masks has shape {masks.shape}, boxes {boxes.shape} and mask_of {mask_of.shape}; "
            "due are [n, h, w], [p, 4] and [p]"
        )
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, accumulation_dtype(boxes)))
    if 0 in masks.shape:
        return jnp.zeros_like(boxes, shape=(len(boxes), *output_size))
    number, height, width = masks.shape
    pooled = _pool_boxes(
        jnp.asarray(masks).reshape(-1, 1),
        jnp.clip(mask_of, 0, number - 1).astype(jnp.int32) * (height * width),
        jnp.broadcast_to(jnp.array([height, width], boxes.dtype), (len(boxes), 2)),
        jnp.full((len(boxes), 1), width, boxes.dtype),
        boxes,
        output_size,
        aligned=False,
        options=Options(None, "bilinear"),
    )
    return pooled[..., 0]


@functools.partial(jax.jit, static_argnames=("output_size", "sampling_ratio", "aligned", "method"))
def _roi_align(
    features: Sequence[Array],
    boxes: Array,
    levels: Array,
    output_size: tuple[int, int],
    *,
    scales: Array,
    sampling_ratio: int | None,
    aligned: bool,
    method: str,
    sizes: Array | None = None,
) -> jax.Array:
    """ROIAlign of each box at its level: all levels' pixels are the rows of one table."""
    _check(features, boxes, output_size)
    if sampling_ratio is not None and sampling_ratio < 1:
        raise ValueError(f"sampling_ratio is {sampling_ratio}; due is at least 1, or None")
    if method not in ("bilinear", "nearest"):
        raise ValueError(f'method is {method!r}; due is "bilinear" or "nearest"')
    dtype = accumulation_dtype(boxes, *features)
    channels = features[0].shape[-1]
    tables = [jnp.asarray(level, dtype).reshape(-1, channels) for level in features]
    # Behind the barrier, lest each gathered row search the parts anew.
    rows = jax.lax.optimization_barrier(jnp.concatenate(tables)) if len(tables) > 1 else tables[0]

    shapes = np.array([level.shape[:2] for level in features])
    offsets = np.cumsum(shapes.prod(axis=1)) - shapes.prod(axis=1)
    pooled = _pool_boxes(
        rows,
        jnp.asarray(offsets, jnp.int32)[levels],
        jnp.asarray(shapes if sizes is None else sizes, dtype)[levels],
        jnp.asarray(shapes[:, 1:], dtype)[levels],
        jnp.asarray(boxes, dtype) * scales.astype(dtype)[levels][:, None],
        output_size,
        aligned=aligned,
        options=Options(sampling_ratio, method),
    )
    return pooled.astype(features[0].dtype)


@functools.partial(jax.jit, static_argnames=("output_size", "aligned", "options"))
def _pool_boxes(
    rows: jax.Array,
    offset: jax.Array,
    sizes: jax.Array,
    widths: jax.Array,
    corners: jax.Array,
    output_size: tuple[int, int],
    *,
    aligned: bool,
    options: Options,
) -> jax.Array:
    """The means over bins of boxes `[n, 4]` in pixels of their maps, of which `sizes` count."""
    height, width = jnp.split(sizes, 2, axis=1)
    known = jnp.isfinite(corners).all(axis=1)
    corners = jnp.where(known[:, None], corners, 0) - (0.5 if aligned else 0)
    start, sides = corners[:, :2], corners[:, 2:] - corners[:, :2]
    sides = sides if aligned else jnp.maximum(sides, 1)
    regions = Regions(
        y=bin_axis(start[:, 1:], sides[:, 1:], output_size[0], height, options.ratio),
        x=bin_axis(start[:, :1], sides[:, :1], output_size[1], width, options.ratio),
        width=widths,
    )
    pooled = pool_bins(rows, offset, regions, options)
    return jnp.where(known[:, None, None, None], pooled, jnp.nan)


def _check(features: Sequence[Array], boxes: Array, output_size: tuple[int, int]) -> None:
    for level in features:
        if level.ndim != 3 or 0 in level.shape[:2] or level.shape[2] != features[0].shape[2]:
            raise ValueError(f"features has shape {level.shape}; due is [h, w, c] with pixels")
    if boxes.ndim != 2 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes has shape {boxes.shape}; due is [n, 4], xyxy")
    for name, array in (("boxes", boxes), *(("features", level) for level in features)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} is {array.dtype}; due is a floating dtype")
    if len(output_size) != 2 or min(output_size) < 1:
        raise ValueError(f"output_size is {output_size}; due are two positive sizes (oh, ow)")
