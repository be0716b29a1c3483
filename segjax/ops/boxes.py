"""Boxes: xyxy in continuous pixels, (0, 0) the corner of the image."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def box_area(boxes: Float[Array, "*b 4"]) -> Float[jax.Array, "*b"]:
    """The area of boxes: `max(x1 − x0, 0)·max(y1 − y0, 0)`.

    Args:
      boxes: `[*b, 4]`, xyxy in pixels.

    Returns:
      `[*b]`, in square pixels, at least float32; 0 for a box whose sides are swapped.

    Raises:
      ValueError: if the last axis of `boxes` is not 4 long.

    Example:
      >>> box_area(jnp.array([[1.0, 1.0, 3.0, 4.0]]))
      Array([6.], dtype=float32)
    """
    _check_boxes(boxes)
    boxes = boxes.astype(accumulation_dtype(boxes))
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def clip_boxes(
    boxes: Float[Array, "*b n 4"], shape: tuple[int, int] | Int[Array, "*b 2"]
) -> Float[jax.Array, "*b n 4"]:
    """The part of each box inside the image: x cut to `0..w`, y to `0..h`.

    Args:
      boxes: `[*b, n, 4]`, xyxy in pixels.
      shape: (h, w) of the image in pixels, or `[*b, 2]` where every image has its own.

    Returns:
      `[*b, n, 4]`, xyxy; a box wholly outside has area 0.

    Raises:
      ValueError: if the last axis of `boxes` is not 4 long, or that of `shape` not 2.

    Example:
      >>> clip_boxes(jnp.array([[-1.0, 2.0, 3.0, 9.0]]), (4, 6))
      Array([[0., 2., 3., 4.]], dtype=float32)
    """
    _check_boxes(boxes)
    size = jnp.asarray(shape)
    if size.ndim < 1 or size.shape[-1] != 2:
        raise ValueError(f"shape has shape {size.shape}; due is (h, w) or [*b, 2]")
    height, width = size[..., 0], size[..., 1]
    limits = jnp.stack([width, height, width, height], axis=-1).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits[..., None, :])


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
    if masks.ndim < 3:
        raise ValueError(f"masks has shape {masks.shape}; due is [*b, n, h, w]")
    if masks.dtype != bool:
        raise TypeError(f"masks is {masks.dtype}; due is bool")
    (x0, x1), (y0, y1) = _extent(jnp.any(masks, axis=-2)), _extent(jnp.any(masks, axis=-1))
    return jnp.stack([x0, y0, x1, y1], axis=-1).astype(jnp.float32)


def _extent(occupied: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first True of the last axis, and one past the last; (0, 0) where there is none."""
    position = jnp.arange(occupied.shape[-1])
    last = jnp.max(jnp.where(occupied, position + 1, 0), axis=-1, initial=0)
    first = jnp.min(jnp.where(occupied, position, occupied.shape[-1]), axis=-1, initial=0x7FFFFFFF)
    return jnp.minimum(first, last), last


def _check_boxes(boxes: Array) -> None:
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes has shape {boxes.shape}; due is [..., 4], xyxy")
