"""Areas, clipping and formats of boxes, in continuous pixels from the image's top-left corner."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.numerics import accumulation_dtype
from segjax.typing import Array

# Position in the box of the first two numbers of each format, in sides from the first corner.
_START = {"xyxy": 0.0, "xywh": 0.0, "cxcywh": 0.5}


def box_area(boxes: Float[Array, "*b 4"]) -> Float[jax.Array, "*b"]:
    """Area of each box: `max(x1 − x0, 0)·max(y1 − y0, 0)`.

    Args:
      boxes: `[*b, 4]`, xyxy in pixels.

    Returns:
      `[*b]`, in square pixels, at least float32; 0 for a box whose corners are swapped.

    Raises:
      ValueError: If the last axis of `boxes` is not 4 long.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.box_area(jnp.array([[1.0, 1.0, 3.0, 4.0]]))
      Array([6.], dtype=float32)
    """
    check_boxes("boxes", boxes)
    boxes = boxes.astype(accumulation_dtype(boxes))
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def clip_boxes(
    boxes: Float[Array, "*b n 4"], shape: tuple[int, int] | Int[Array, "*b 2"]
) -> Float[jax.Array, "*b n 4"]:
    """Clip boxes to the image: x to `0..w`, y to `0..h`.

    Args:
      boxes: `[*b, n, 4]`, xyxy in pixels.
      shape: (h, w) of the image in pixels, or `[*b, 2]` for images of different sizes.

    Returns:
      `[*b, n, 4]`, xyxy in pixels; a box that lies wholly outside has area 0.

    Raises:
      ValueError: If the last axis of `boxes` is not 4 long, or that of `shape` not 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.clip_boxes(jnp.array([[-1.0, 2.0, 3.0, 9.0]]), (4, 6))
      Array([[0., 2., 3., 4.]], dtype=float32)
    """
    check_boxes("boxes", boxes)
    size = jnp.asarray(shape)
    if size.ndim < 1 or size.shape[-1] != 2:
        raise ValueError(f"shape: expected (h, w) or shape [*b, 2], got shape {size.shape}")
    height, width = size[..., 0], size[..., 1]
    limits = jnp.stack([width, height, width, height], axis=-1).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits[..., None, :])


def convert_boxes(
    boxes: Float[Array, "*b 4"], source: str, target: str
) -> Float[jax.Array, "*b 4"]:
    """Convert boxes from one format to another.

    "xyxy" is the top-left and the bottom-right corner, "xywh" the top-left corner, width and
    height, "cxcywh" the centre, width and height.

    Args:
      boxes: `[*b, 4]` in pixels, or in fractions of the image.
      source: Format of `boxes`: "xyxy", "xywh" or "cxcywh".
      target: Format to convert to.

    Returns:
      `[*b, 4]` in the dtype of `boxes`; computed in at least float32.

    Raises:
      ValueError: If the last axis of `boxes` is not 4 long, or a format is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.convert_boxes(jnp.array([1.0, 2.0, 4.0, 8.0]), "xyxy", "cxcywh")
      Array([2.5, 5. , 3. , 6. ], dtype=float32)
    """
    check_boxes("boxes", boxes)
    for name, value in (("source", source), ("target", target)):
        if value not in _START:
            raise ValueError(f"{name}: expected one of {', '.join(_START)}, got {value!r}")
    boxes = jnp.asarray(boxes)
    first, second = jnp.split(boxes.astype(accumulation_dtype(boxes)), 2, axis=-1)
    sides = second - first if source == "xyxy" else second

    def point(fraction):
        return first + (fraction - _START[source]) * sides

    second = point(1) if target == "xyxy" else sides
    return jnp.concatenate([point(_START[target]), second], axis=-1).astype(boxes.dtype)


def check_boxes(name: str, boxes: Array) -> None:
    """Raises a ValueError if the last axis of `boxes` is not 4 long."""
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"{name}: expected shape [..., 4], got {boxes.shape}")
