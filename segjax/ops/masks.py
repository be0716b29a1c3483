"""Masks of objects: their boxes, their overlap, and pasting them from a box into an image."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype, safe_divide
from segjax.ops.boxes import check_boxes
from segjax.typing import Array

# Of masks that are held as floats at once: all of large pictures would fill the memory.
_PIXELS = 1 << 14


def masks_to_boxes(masks: Bool[Array, "*b n h w"]) -> Float[jax.Array, "*b n 4"]:
    """The smallest box around each mask, covering whole pixels.

    `x0` is the first column with a pixel of the mask and `x1` the last one plus 1; so with rows.

    Args:
      masks: `[*b, n, h, w]`, boolean.

    Returns:
      float32 `[*b, n, 4]`, xyxy in pixels; zeros for an empty mask.

    Raises:
      ValueError: if `masks` has fewer than 3 axes.
      TypeError: if `masks` is not boolean.

    Example:
      >>> masks_to_boxes(jnp.zeros((1, 5, 5), bool).at[0, 1:3, 2].set(True))
      Array([[2., 1., 3., 3.]], dtype=float32)
    """
    _check_masks("masks", masks)
    (x0, x1), (y0, y1) = _extent(jnp.any(masks, axis=-2)), _extent(jnp.any(masks, axis=-1))
    return jnp.stack([x0, y0, x1, y1], axis=-1).astype(jnp.float32)


def mask_iou(a: Bool[Array, "*b n h w"], b: Bool[Array, "*b m h w"]) -> Float[jax.Array, "*b n m"]:
    """The intersection over union of every pair: `|a_i ∩ b_j| / |a_i ∪ b_j|`.

    Args:
      a: `[*b, n, h, w]`, boolean.
      b: `[*b, m, h, w]`, boolean.

    Returns:
      float32 `[*b, n, m]`; 0 for two empty masks. Exact up to 2²⁴ pixels a mask.

    Raises:
      ValueError: if `a` or `b` has fewer than 3 axes, or their pictures differ in size.
      TypeError: if `a` or `b` is not boolean.

    Example:
      >>> mask_iou(jnp.array([[[True, True]]]), jnp.array([[[True, False]], [[False, False]]]))
      Array([[0.5, 0. ]], dtype=float32)
    """
    _check_masks("a", a)
    _check_masks("b", b)
    if a.shape[:-3] + a.shape[-2:] != b.shape[:-3] + b.shape[-2:]:
        raise ValueError(f"b has shape {b.shape}; due is that of a, {a.shape}, but for n")
    intersection, area_a, area_b = _count_pixels(a, b)
    return safe_divide(intersection, area_a[..., :, None] + area_b[..., None, :] - intersection)


# Compiled once: a loop that is called eagerly is compiled anew at every call.
@jax.jit
def _count_pixels(a: Array, b: Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each pair, and of each mask; some pixels at a time are held as floats."""
    pixels = a.shape[-2] * a.shape[-1]
    part = max(min(pixels, _PIXELS), 1)
    masks = tuple(x.reshape(*x.shape[:-2], pixels) for x in (a, b))
    masks = tuple(jnp.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, -pixels % part)]) for x in masks)

    def count_part(i):
        x, y = (
            lax.dynamic_slice_in_dim(mask, i * part, part, axis=-1).astype(jnp.float32)
            for mask in masks
        )
        return jnp.einsum("...np,...mp->...nm", x, y), x.sum(axis=-1), y.sum(axis=-1)

    def add_part(i, totals):
        return jax.tree.map(jnp.add, totals, count_part(i))

    return lax.fori_loop(1, -(-pixels // part), add_part, count_part(0))


def paste_masks(
    masks: Float[Array, "*b n mh mw"], boxes: Float[Array, "*b n 4"], shape: tuple[int, int]
) -> Float[jax.Array, "*b n h w"]:
    """Each mask resized to its box and set into an image of zeros, with torchvision's values.

    The mask gets a rim of zeros one pixel wide, and its box grows likewise. The box's corners are
    then rounded towards 0, and the whole pixels from one through the other are covered bilinearly.
    Differentiable in `masks`; the gradient by `boxes` is 0, since they are rounded.

    The result of n masks holds n·h·w numbers; for many of them call it on some at a time
    (`jax.lax.map`) and keep what you need, as the booleans above a threshold.

    Args:
      masks: `[*b, n, mh, mw]`, of any size: the probabilities that a mask head gives.
      boxes: `[*b, n, 4]`, xyxy in pixels; they may lie outside the image in part or whole.
      shape: (h, w) of the image in pixels, static.

    Returns:
      `[*b, n, h, w]` in the dtype of `masks`, computed in at least float32; 0 outside the boxes.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> mask = jnp.array([[0.2, 0.4], [0.6, 0.8]])
      >>> paste_masks(mask[None], jnp.array([[1.25, 1.25, 2.75, 2.75]]), (3, 4))
      Array([[[0. , 0. , 0. , 0. ],
              [0. , 0.2, 0.4, 0. ],
              [0. , 0.6, 0.8, 0. ]]], dtype=float32)

    References:
      He et al., "Mask R-CNN", 2017, section 3.1, "Inference".
    """
    check_boxes("boxes", boxes)
    if masks.ndim < 3 or masks.shape[:-2] != boxes.shape[:-1] or 0 in masks.shape[-2:]:
        raise ValueError(
            f"masks has shape {masks.shape}; due is [*b, n, mh, mw] for boxes of {boxes.shape}"
        )
    masks, dtype = jnp.asarray(masks), accumulation_dtype(masks, boxes)
    # Each axis grows by its own size; torchvision takes the width's for both of an oblong mask.
    x0, y0, x1, y1 = jnp.moveaxis(boxes.astype(dtype), -1, 0)
    rows = _pasting_weights(y0, y1, masks.shape[-2], shape[0])
    columns = _pasting_weights(x0, x1, masks.shape[-1], shape[1])
    # The default of accelerators rounds the factors to bfloat16.
    pasted = jnp.einsum(
        "...hy,...yx,...wx->...hw",
        rows,
        masks.astype(dtype),
        columns,
        precision=lax.Precision.HIGHEST,
    )
    return pasted.astype(masks.dtype)


def _pasting_weights(
    start: jax.Array, end: jax.Array, size: int, length: int
) -> Float[jax.Array, "*n length size"]:
    """What each of `size` mask pixels weighs in each of `length` image pixels, along one axis."""
    centre, half = (start + end) / 2, (end - start) / 2 * ((size + 2) / size)
    first, last = (
        jnp.trunc(lax.stop_gradient(x))[..., None] for x in (centre - half, centre + half)
    )
    pixels = jnp.arange(length)
    step = (size + 2) / jnp.maximum(last - first + 1, 1)
    # In mask pixels of which the rim has the centres 0 and size + 1.
    position = jnp.clip((pixels - first + 0.5) * step - 0.5, 0, size + 1)
    covered = (first <= pixels) & (pixels <= last)
    distance = jnp.abs(position[..., None] - jnp.arange(1, size + 1))
    return jnp.where(covered[..., None], jnp.maximum(1 - distance, 0), 0)


def _extent(occupied: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first True of the last axis, and one past the last; (0, 0) where there is none."""
    position = jnp.arange(occupied.shape[-1])
    last = jnp.max(jnp.where(occupied, position + 1, 0), axis=-1, initial=0)
    first = jnp.min(jnp.where(occupied, position, occupied.shape[-1]), axis=-1, initial=0x7FFFFFFF)
    return jnp.minimum(first, last), last


def _check_masks(name: str, masks: Array) -> None:
    if masks.ndim < 3:
        raise ValueError(f"{name} has shape {masks.shape}; due is [*b, n, h, w]")
    if masks.dtype != bool:
        raise TypeError(f"{name} is {masks.dtype}; due is bool")
