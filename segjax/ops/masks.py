"""Instance masks: their boxes, their IoU, and pasting them into an image."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype, safe_divide
from segjax.ops.boxes import check_boxes
from segjax.typing import Array

# Pixels that are converted to floats at a time, as whole masks could fill the memory.
_PIXELS = 1 << 14


def masks_to_boxes(masks: Bool[Array, "*b n h w"]) -> Float[jax.Array, "*b n 4"]:
    """Bounding box of each mask, around whole pixels.

    `x0` is the first column with a pixel of the mask and `x1` the last one plus 1; `y0` and `y1`
    likewise.

    Args:
      masks: `[*b, n, h, w]`, boolean.

    Returns:
      float32 `[*b, n, 4]`, xyxy in pixels; zeros for an empty mask.

    Raises:
      ValueError: If `masks` has fewer than 3 axes.
      TypeError: If `masks` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.masks_to_boxes(jnp.zeros((1, 5, 5), bool).at[0, 1:3, 2].set(True))
      Array([[2., 1., 3., 3.]], dtype=float32)
    """
    check_masks("masks", masks)
    (x0, x1), (y0, y1) = _extent(jnp.any(masks, axis=-2)), _extent(jnp.any(masks, axis=-1))
    return jnp.stack([x0, y0, x1, y1], axis=-1).astype(jnp.float32)


def mask_iou(a: Bool[Array, "*b n h w"], b: Bool[Array, "*b m h w"]) -> Float[jax.Array, "*b n m"]:
    """Intersection over union of every pair of masks: `|a_i ∩ b_j| / |a_i ∪ b_j|`.

    Args:
      a: `[*b, n, h, w]`, boolean.
      b: `[*b, m, h, w]`, boolean.

    Returns:
      float32 `[*b, n, m]`, in 0..1; 0 for two empty masks. Exact for masks of up to 2²⁴ pixels.

    Raises:
      ValueError: If `a` or `b` has fewer than 3 axes, or their h, w or batch axes differ.
      TypeError: If `a` or `b` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.mask_iou(jnp.array([[[True, True]]]), jnp.array([[[True, False]], [[False, False]]]))
      Array([[0.5, 0. ]], dtype=float32)
    """
    check_masks("a", a)
    check_masks("b", b)
    if a.shape[:-3] + a.shape[-2:] != b.shape[:-3] + b.shape[-2:]:
        raise ValueError(f"b: expected the shape of a, {a.shape}, but for n, got {b.shape}")
    intersection, area_a, area_b = _count_pixels(a, b)
    return safe_divide(intersection, area_a[..., :, None] + area_b[..., None, :] - intersection)


# Jitted, as a loop that is called eagerly is compiled at every call.
@jax.jit
def _count_pixels(a: Array, b: Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pixels in the intersection of each pair, and in each mask of `a` and of `b`."""
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
    """Resize each mask to its box and paste it into an empty image, with torchvision's values.

    The mask is padded by one pixel of zeros and its box grows accordingly. The corners of the box
    are rounded towards 0, and the mask is interpolated bilinearly over the pixels between them.
    Differentiable in `masks`; the gradient with respect to `boxes` is 0, as they are rounded.

    The result holds n·h·w numbers. For many masks, call it on some at a time (`jax.lax.map`) and
    keep only what you need, such as the pixels above a threshold.

    Args:
      masks: `[*b, n, mh, mw]`, probabilities of a mask head, at any resolution.
      boxes: `[*b, n, 4]`, xyxy in pixels; they may lie partly or wholly outside the image.
      shape: (h, w) of the image in pixels, static.

    Returns:
      `[*b, n, h, w]` in the dtype of `masks`, computed in at least float32; 0 outside the boxes.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> mask = jnp.array([[0.2, 0.4], [0.6, 0.8]])
      >>> ops.paste_masks(mask[None], jnp.array([[1.25, 1.25, 2.75, 2.75]]), (3, 4))
      Array([[[0. , 0. , 0. , 0. ],
              [0. , 0.2, 0.4, 0. ],
              [0. , 0.6, 0.8, 0. ]]], dtype=float32)

    References:
      He et al., "Mask R-CNN", 2017, section 3.1, "Inference".
    """
    check_boxes("boxes", boxes)
    if masks.ndim < 3 or masks.shape[:-2] != boxes.shape[:-1] or 0 in masks.shape[-2:]:
        raise ValueError(
            f"masks: expected shape [*b, n, mh, mw] for boxes of {boxes.shape}, got {masks.shape}"
        )
    masks, dtype = jnp.asarray(masks), accumulation_dtype(masks, boxes)
    # Each axis grows by its own size; torchvision uses the width for both axes of an oblong mask.
    x0, y0, x1, y1 = jnp.moveaxis(boxes.astype(dtype), -1, 0)
    rows = _pasting_weights(y0, y1, masks.shape[-2], shape[0])
    columns = _pasting_weights(x0, x1, masks.shape[-1], shape[1])
    # By default accelerators round the factors to bfloat16.
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
    """Weights of the `size` mask pixels in each of `length` image pixels, along one axis."""
    centre, half = (start + end) / 2, (end - start) / 2 * ((size + 2) / size)
    first, last = (
        jnp.trunc(lax.stop_gradient(x))[..., None] for x in (centre - half, centre + half)
    )
    pixels = jnp.arange(length)
    step = (size + 2) / jnp.maximum(last - first + 1, 1)
    # In mask pixels; the centres of the padding are 0 and size + 1.
    position = jnp.clip((pixels - first + 0.5) * step - 0.5, 0, size + 1)
    covered = (first <= pixels) & (pixels <= last)
    distance = jnp.abs(position[..., None] - jnp.arange(1, size + 1))
    return jnp.where(covered[..., None], jnp.maximum(1 - distance, 0), 0)


def _extent(occupied: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index of the first True of the last axis, and of the last one plus 1; (0, 0) without any."""
    position = jnp.arange(occupied.shape[-1])
    last = jnp.max(jnp.where(occupied, position + 1, 0), axis=-1, initial=0)
    first = jnp.min(jnp.where(occupied, position, occupied.shape[-1]), axis=-1, initial=0x7FFFFFFF)
    return jnp.minimum(first, last), last


def check_masks(name: str, masks: Array) -> None:
    """Raises an error if masks are not boolean `[*b, n, h, w]`."""
    if masks.ndim < 3:
        raise ValueError(f"{name}: expected shape [*b, n, h, w], got {masks.shape}")
    if masks.dtype != bool:
        raise TypeError(f"{name}: expected bool, got {masks.dtype}")
