"""Boxes as a detector's head gives them: shifts and log scales against proposals."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype, safe_divide
from segjax.ops.boxes import check_boxes, convert_boxes
from segjax.typing import Array

# A proposal of 16 pixels becomes a box of 1,000 at most.
_MAX_LOG_SCALE = math.log(1000 / 16)


def encode_boxes(
    reference: Float[Array, "*b 4"],
    proposals: Float[Array, "*b 4"],
    *,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[jax.Array, "*b 4"]:
    """What makes `reference` of `proposals`: the target of a detector's box head.

    `(λ_x (x − x_p)/w_p, λ_y (y − y_p)/h_p, λ_w ln(w/w_p), λ_h ln(h/h_p))`, where `x, y` is the
    centre of a box.

    Args:
      reference: `[*b, 4]`, xyxy in pixels: the objects.
      proposals: `[*b, 4]`, xyxy in pixels: the proposals or anchors matched to them.
      weights: the four `λ`; (10, 10, 5, 5) in the second stage of Faster R-CNN.

    Returns:
      `[*b, 4]`, at least float32; 0 for a side that has no length in one of the two boxes.

    Raises:
      ValueError: if the shapes are not `[*b, 4]` or differ.

    Example:
      >>> encode_boxes(jnp.array([1.0, 0.0, 5.0, 2.0]), jnp.array([0.0, 0.0, 4.0, 2.0]))
      Array([0.25, 0.  , 0.  , 0.  ], dtype=float32)

    References:
      Girshick et al., "Rich feature hierarchies", 2014, appendix C, eqs. 6 to 9.
    """
    centre, sides = _centre_and_sides("reference", reference, proposals)
    origin, unit = _centre_and_sides("proposals", proposals, reference)
    ratio = safe_divide(sides, unit)
    proper = (sides > 0) & (unit > 0) & (ratio > 0) & (ratio < jnp.inf)
    scale = jnp.log(jnp.where(proper, ratio, 1))
    shift = safe_divide(centre - origin, unit)
    return jnp.concatenate([shift, scale], axis=-1) * jnp.asarray(weights, scale.dtype)


def decode_boxes(
    deltas: Float[Array, "*b 4"],
    proposals: Float[Array, "*b 4"],
    *,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[jax.Array, "*b 4"]:
    """The boxes that `deltas` make of `proposals`: the inverse of `encode_boxes`.

    The log scales are cut at `ln(1000/16)`, above which their gradient is 0.

    Args:
      deltas: `[*b, 4]`, what the head gives.
      proposals: `[*b, 4]`, xyxy in pixels.
      weights: the four `λ` that the deltas were encoded with.

    Returns:
      `[*b, 4]`, xyxy in pixels, at least float32; they may lie outside the image.

    Raises:
      ValueError: if the shapes are not `[*b, 4]` or differ.

    Example:
      >>> decode_boxes(jnp.array([0.25, 0.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 4.0, 2.0]))
      Array([1., 0., 5., 2.], dtype=float32)

    References:
      Girshick et al., "Rich feature hierarchies", 2014, appendix C, eqs. 1 to 4.
    """
    check_boxes("deltas", deltas)
    origin, unit = _centre_and_sides("proposals", proposals, deltas)
    deltas = deltas.astype(origin.dtype) / jnp.asarray(weights, origin.dtype)
    shift, scale = deltas[..., :2], jnp.minimum(deltas[..., 2:], _MAX_LOG_SCALE)
    boxes = jnp.concatenate([origin + shift * unit, unit * jnp.exp(scale)], axis=-1)
    return convert_boxes(boxes, "cxcywh", "xyxy")


def _centre_and_sides(name: str, boxes: Array, other: Array) -> tuple[jax.Array, jax.Array]:
    """Halves of `boxes` in the dtype that both compute in."""
    check_boxes(name, boxes)
    if boxes.shape != other.shape:
        raise ValueError(f"{name} has shape {boxes.shape}; due is that of the other, {other.shape}")
    boxes = convert_boxes(boxes.astype(accumulation_dtype(boxes, other)), "xyxy", "cxcywh")
    return boxes[..., :2], boxes[..., 2:]
