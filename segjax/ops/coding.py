"""Box regression: boxes as shifts and log scales relative to proposals."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype, safe_divide
from segjax.ops.boxes import check_boxes, convert_boxes
from segjax.typing import Array

# A proposal of 16 pixels becomes a box of at most 1,000.
_MAX_LOG_SCALE = math.log(1000 / 16)


def encode_boxes(
    reference: Float[Array, "*b 4"],
    proposals: Float[Array, "*b 4"],
    *,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[jax.Array, "*b 4"]:
    """The shifts and scales that turn `proposals` into `reference`: targets of a box head.

    `(λ_x (x − x_p)/w_p, λ_y (y − y_p)/h_p, λ_w ln(w/w_p), λ_h ln(h/h_p))`, where `x, y` is the
    centre and `w, h` the size of a reference box, and `x_p …` those of its proposal.

    Args:
      reference: `[*b, 4]`, xyxy in pixels: boxes of the objects.
      proposals: `[*b, 4]`, xyxy in pixels: the proposals or anchors matched to them.
      weights: The four `λ`; (10, 10, 5, 5) in the second stage of Faster R-CNN.

    Returns:
      `[*b, 4]`, at least float32; a scale is 0 where one of the two boxes has no extent.

    Raises:
      ValueError: If the shapes are not `[*b, 4]` or differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.encode_boxes(jnp.array([1.0, 0.0, 5.0, 2.0]), jnp.array([0.0, 0.0, 4.0, 2.0]))
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
    """Apply a box head's shifts and scales to `proposals`: the inverse of `encode_boxes`.

    The log scales are clipped at `ln(1000/16)`, and their gradient is 0 above.

    Args:
      deltas: `[*b, 4]`, predictions of the box head.
      proposals: `[*b, 4]`, xyxy in pixels.
      weights: The four `λ` that the deltas were encoded with.

    Returns:
      `[*b, 4]`, xyxy in pixels, at least float32; they may lie outside the image.

    Raises:
      ValueError: If the shapes are not `[*b, 4]` or differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.decode_boxes(jnp.array([0.25, 0.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 4.0, 2.0]))
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
    """(x, y) of the centre and (w, h) of each box, in the dtype of the computation."""
    check_boxes(name, boxes)
    if boxes.shape != other.shape:
        raise ValueError(
            f"{name}: expected the shape of the other argument, {other.shape}, got {boxes.shape}"
        )
    boxes = convert_boxes(boxes.astype(accumulation_dtype(boxes, other)), "xyxy", "cxcywh")
    return boxes[..., :2], boxes[..., 2:]
