"""Features and masks inside boxes: ROIAlign on one map or a pyramid, ROI pooling, mask crops."""

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
    """ROIAlign: the features inside each box, interpolated on a grid of fixed size.

    Each box is divided into `oh × ow` bins; `out[i, j]` is the mean of the features at `r × r`
    points of bin `(i, j)`, which along x are `x0 + (k + ½)·(x1 − x0)/(r·ow)` for
    `k = r·j … r·j + r − 1`. The values are those of `torchvision.ops.roi_align`. Differentiable in
    `features` and `boxes`, in reverse mode and once.

    Args:
      features: `[h, w, c]`, floating.
      boxes: `[n, 4]`, xyxy in continuous pixels of the image.
      output_size: (oh, ow), static.
      spatial_scale: Pixels of `features` per pixel of the image: 1/stride.
      sampling_ratio: `r`, sampling points along each side of a bin, static; None takes `⌈side/out⌉`
        for each box and axis, so that points are at most one pixel apart.
      aligned: False for the original convention, without the shift by half a pixel: features lie
        half a pixel further right and down, and a side below one pixel counts as one.
      method: interpolation between pixels, "bilinear" or "nearest".

    Returns:
      `[n, oh, ow, c]` in the dtype of `features`; computed in at least float32. A point up to a
      pixel beyond the centres of the border pixels has their features, one further out 0. A box
      with swapped corners is read backwards; with `sampling_ratio=None` it gives 0, as does a box
      without area. A box that is not finite gives NaN, and takes no part in any gradient.

    Raises:
      ValueError: If the shapes are wrong, or an option is out of its range.
      TypeError: If `features` or `boxes` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ramp = jnp.arange(4.0)[None, :, None] * jnp.ones((4, 1, 1))
      >>> ops.roi_align(ramp, jnp.array([[1.0, 1.0, 3.0, 3.0]]), (1, 2))[0, 0, :, 0]
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
    """ROIAlign on a feature pyramid: each box is pooled from the level that fits its size.

    Args:
      features: The levels, finest first, each `[h, w, c]`; their strides are `2^min_level`,
        `2^(min_level + 1)` … pixels of the image.
      boxes: `[n, 4]`, xyxy in continuous pixels of the image.
      output_size: (oh, ow), static.
      min_level: Number of the finest level, base-2 logarithm of its stride.
      sampling_ratio: `r`, sampling points along each side of a bin, static; None takes `⌈side/out⌉`
        for each box and axis, so that points are at most one pixel apart.
      aligned: False for the original convention, without the shift by half a pixel: features lie
        half a pixel further right and down, and a side below one pixel counts as one.
      method: interpolation between pixels, "bilinear" or "nearest".
      canonical_level: Level of boxes of the canonical size, as in `assign_levels`.
      canonical_size: Canonical size of boxes in pixels, as in `assign_levels`.
      sizes: `[levels, 2]`, (rows, columns) of each level that the image covers, if it is padded at
        the bottom and right; None if it covers all.

    Returns:
      `[n, oh, ow, c]` in the dtype of the features; computed in at least float32. Values outside
      the image and of degenerate boxes are those of `roi_align`.

    Raises:
      ValueError: If the shapes are wrong, or an option is out of its range.
      TypeError: If `features` or `boxes` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> pyramid = [jnp.full((8, 8, 1), 2.0), jnp.full((4, 4, 1), 3.0)]
      >>> boxes = jnp.array([[0.0, 0.0, 9.0, 9.0], [-99.0, -99.0, 120.0, 120.0]])
      >>> ops.multilevel_roi_align(pyramid, boxes, (1, 1), sampling_ratio=1)[:, 0, 0, 0]
      Array([2., 3.], dtype=float32)

    References:
      Lin et al., "Feature pyramid networks for object detection", 2017, section 4.2.
    """
    if len(features) == 0:
        raise ValueError("features: expected at least one level, got none")
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
    """ROI pooling: the maximum of the features in each bin of a box; ROIAlign's predecessor.

    Each box is rounded to whole pixels, both ends included, and divided into `oh × ow` bins, which
    are rounded outward; `out[i, j]` is the maximum over the pixels of bin `(i, j)`. The values are
    those of `torchvision.ops.roi_pool`.

    Args:
      features: `[h, w, c]`, floating.
      boxes: `[n, 4]`, xyxy in continuous pixels of the image.
      output_size: (oh, ow), static.
      spatial_scale: Pixels of `features` per pixel of the image: 1/stride.

    Returns:
      `[n, oh, ow, c]` in the dtype of `features`: 0 for a bin outside the map, and NaN for a box
      that is not finite. No gradient flows to the boxes; equal maxima share theirs.

    Raises:
      ValueError: If the shapes are wrong.
      TypeError: If `features` or `boxes` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ramp = jnp.arange(4.0)[None, :, None] * jnp.ones((4, 1, 1))
      >>> ops.roi_pool(ramp, jnp.array([[0.0, 0.0, 3.0, 3.0]]), (1, 2))[0, 0, :, 0]
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
        """Which pixels of an axis each bin contains, `[bins, pixels]`."""
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
    """Pyramid level of each box by its size: `⌊k₀ + log₂(√area/s₀)⌋`, clipped to the levels.

    Args:
      boxes: `[*n, 4]`, xyxy in pixels of the image.
      min_level: The finest level, also for smaller boxes and those without area.
      max_level: The coarsest level, also for larger boxes.
      canonical_level: Level `k₀` of boxes of the canonical size.
      canonical_size: Canonical size `s₀` in pixels: the side of images in ImageNet pretraining.

    Returns:
      Levels, int32 `[*n]`.

    Raises:
      ValueError: If the last axis of `boxes` is not 4 long, or `max_level` below `min_level`.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> sides = jnp.array([10.0, 111.0, 112.0, 224.0, 1000.0])
      >>> ops.assign_levels(jnp.stack([0 * sides, 0 * sides, sides, sides], axis=-1))
      Array([2, 2, 3, 4, 5], dtype=int32)

    References:
      Lin et al., "Feature pyramid networks for object detection", 2017, eq. 1.
    """
    if max_level < min_level:
        raise ValueError(f"max_level: expected at least min_level, {min_level}, got {max_level}")
    # Areas are compared with each level's least area, as a logarithm would round at the threshold.
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
    """Targets of a mask head: the mask of each box, averaged over the bins of its crop.

    This is `roi_align` of the mask with `aligned=False, sampling_ratio=None`. Only the mask of each
    box is read, so the time does not grow with the number of masks.

    Args:
      masks: `[n, h, w]`, boolean.
      boxes: `[p, 4]`, xyxy in pixels, inside the image; a side below one pixel counts as one.
      mask_of: `[p]`, index of each box's mask, clipped to 0..n−1.
      output_size: (oh, ow), static.

    Returns:
      `[p, oh, ow]`, in 0..1, without gradient; 0 if there are no masks.

    Raises:
      ValueError: If the shapes are wrong.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> masks = jnp.array([[[True, True, False, False]] * 4, [[False] * 4] * 4])
      >>> boxes = jnp.array([[0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 3.0, 3.0]])
      >>> ops.crop_masks(masks, boxes, jnp.array([0, 1]), (1, 3)).round(2)[:, 0]
      Array([[1. , 0.5, 0. ],
             [0. , 0. , 0. ]], dtype=float32)

    References:
      He et al., "Mask R-CNN", 2017, section 3.1; torchvision's targets.
    """
    if masks.ndim != 3 or boxes.shape != (*mask_of.shape, 4) or mask_of.ndim != 1:
        raise ValueError(
            f"masks, boxes, mask_of: expected shapes [n, h, w], [p, 4], [p], got {masks.shape}, "
            f"{boxes.shape}, {mask_of.shape}"
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
    """ROIAlign of each box at its level; the pixels of all levels are the rows of one table."""
    _check(features, boxes, output_size)
    if sampling_ratio is not None and sampling_ratio < 1:
        raise ValueError(f"sampling_ratio: expected at least 1, or None, got {sampling_ratio}")
    if method not in ("bilinear", "nearest"):
        raise ValueError(f'method: expected "bilinear" or "nearest", got {method!r}')
    dtype = accumulation_dtype(boxes, *features)
    channels = features[0].shape[-1]
    tables = [jnp.asarray(level, dtype).reshape(-1, channels) for level in features]
    # Without the barrier every gathered row would search the concatenated parts again.
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
    """Means over the bins of boxes `[n, 4]`, in pixels of maps that are `sizes` large."""
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
            raise ValueError(f"features: expected shape [h, w, c] with pixels, got {level.shape}")
    if boxes.ndim != 2 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes: expected shape [n, 4], xyxy, got {boxes.shape}")
    for name, array in (("boxes", boxes), *(("features", level) for level in features)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: expected a floating dtype, got {array.dtype}")
    if len(output_size) != 2 or min(output_size) < 1:
        raise ValueError(f"output_size: expected two positive sizes (oh, ow), got {output_size}")
