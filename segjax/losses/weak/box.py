"""Losses of masks of which only the boxes are known."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from segjax.losses.region import dice_loss
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array

# Each pair of 8-neighbours once, as (rows, columns).
_NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))
_SRGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


def box_projection_loss(
    probs: Float[Array, "*b n h w"],
    boxes: Float[Array, "*b n 4"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b n"]:
    """Mask and box should cast the same shadows: `L(max_y m, max_y b) + L(max_x m, max_x b)`.

    `L` is the Dice loss with squared denominator, `m` the mask's probabilities, and `b` is 1 on the
    pixels whose centres the box contains. Each maximum runs over a column, or a row.

    Args:
      probs: `[*b, n, h, w]`, in 0..1.
      boxes: `[*b, n, 4]`, xyxy in pixels.
      where: broadcasts to `probs`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, n]`, in 0..2, at least float32. An empty box, as of a padded instance, has gradient 0.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> cross = jnp.array([[[0, 1.0, 0], [1, 1, 1], [0, 1, 0]]])
      >>> box_projection_loss(cross, jnp.array([[0.0, 0.0, 3.0, 3.0]]))  # as good as the whole box
      Array([0.], dtype=float32)

    References:
      Tian et al., "BoxInst: high-performance instance segmentation with box annotations",
      2021, section 3 (projection loss).
    """
    _check_boxes("probs", probs, boxes)
    valid = broadcast_where(where, probs.shape)
    probs = jnp.where(valid, probs.astype(accumulation_dtype(probs)), 0)
    box_masks = _box_masks(boxes, probs.shape[-2:]) & valid

    def shadow_loss(axis):
        shadow, box_shadow = jnp.max(probs, axis), jnp.any(box_masks, axis)
        return dice_loss(shadow, box_shadow, axis=-1, squared=True)

    return shadow_loss(-2) + shadow_loss(-1)


def pairwise_affinity_loss(
    logits: Float[Array, "*b n h w"],
    image: Float[Array, "*b h w 3"],
    boxes: Float[Array, "*b n 4"],
    *,
    dilation: int = 2,
    threshold: float = 0.3,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b n"]:
    """Neighbours of like colour belong together: the mean of `−log(m_i m_j + (1 − m_i)(1 − m_j))`.

    It runs over the pairs of 8-neighbours, `dilation` pixels apart, with at least one in the box
    and a similarity `exp(−|c_i − c_j|/2)` of at least `threshold`, `c` being their CIELAB colours.
    `m = sigmoid(logits)`.

    Args:
      logits: `[*b, n, h, w]`, of the masks.
      image: `[*b, h, w, 3]`, sRGB in 0..1. It only chooses the pairs: its gradient is 0.
      boxes: `[*b, n, 4]`, xyxy in pixels.
      dilation: in pixels, at least 1.
      threshold: in 0..1.
      where: broadcasts to `logits`; False for void pixels, whose logits may be anything: they
        belong to no pair.

    Returns:
      `[*b, n]` in nats, at least float32; 0 for a mask without such pairs.

    Raises:
      ValueError: if the shapes do not fit together, or an option is out of its range.
      TypeError: if `where` is not boolean.

    Example:
      >>> logits = jnp.array([[[10.0, -10.0, 10.0]]])
      >>> image = jnp.ones((1, 3, 3))
      >>> pairwise_affinity_loss(logits, image, jnp.array([[0.0, 0, 3, 1]])).round(3)  # the 10s
      Array([0.], dtype=float32)

    References:
      Tian et al., "BoxInst: high-performance instance segmentation with box annotations",
      2021, section 3 (pairwise affinity loss).
    """
    _check_boxes("logits", logits, boxes)
    due = (*logits.shape[:-3], *logits.shape[-2:], 3)
    if image.shape != due:
        raise ValueError(f"image: expected shape {due}, got {image.shape}")
    if dilation < 1:
        raise ValueError(f"dilation: expected at least 1, got {dilation}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected in 0..1, got {threshold}")
    valid = broadcast_where(where, logits.shape)
    logits = jnp.where(valid, logits.astype(accumulation_dtype(logits)), 0)
    log_on, log_off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    in_box = _box_masks(boxes, logits.shape[-2:])
    lab = jnp.moveaxis(_lab(jax.lax.stop_gradient(image)), -1, -3)

    total: Any = 0
    count: Any = 0
    for rows, cols in _NEIGHBOURS:
        pair = functools.partial(_pair, rows=dilation * rows, cols=dilation * cols)
        (lab_i, lab_j), (on_i, on_j), (off_i, off_j) = pair(lab), pair(log_on), pair(log_off)
        (valid_i, valid_j), (in_i, in_j) = pair(valid), pair(in_box)
        distance = jnp.sqrt(jnp.sum((lab_i - lab_j) ** 2, axis=-3))
        similar = (jnp.exp(-distance / 2) >= threshold)[..., None, :, :]
        counted = similar & (in_i | in_j) & valid_i & valid_j
        losses = -jnp.logaddexp(on_i + on_j, off_i + off_j)
        total += jnp.sum(jnp.where(counted, losses, 0), axis=(-2, -1))
        count += jnp.sum(counted, axis=(-2, -1))
    return safe_divide(total, count)


def _pair(array: jax.Array, *, rows: int, cols: int) -> tuple[jax.Array, jax.Array]:
    """All pixels `i` and their neighbours `j`, so many rows and columns further, inside both."""
    height, width = array.shape[-2:]
    rows, left, right = min(rows, height), min(max(-cols, 0), width), min(max(cols, 0), width)
    here = array[..., : height - rows, left : width - right]
    return here, array[..., rows:, right : width - left]


def _box_masks(boxes: Array, shape: tuple[int, ...]) -> jax.Array:
    """`[*b, n, h, w]`: the pixels whose centres each box contains."""
    y, x = (jnp.arange(size) + 0.5 for size in shape)
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)[..., None]
    in_rows, in_cols = (y0 <= y) & (y < y1), (x0 <= x) & (x < x1)
    return in_rows[..., :, None] & in_cols[..., None, :]


def _lab(image: Array) -> jax.Array:
    """CIELAB of sRGB, for the white of its own primaries (D65)."""
    rgb = image.astype(accumulation_dtype(image))
    linear = jnp.where(rgb > 0.04045, ((jnp.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = jnp.asarray(_SRGB_TO_XYZ / _SRGB_TO_XYZ.sum(axis=1, keepdims=True), rgb.dtype)
    xyz = jnp.einsum("...c,xc->...x", linear, to_xyz, precision=jax.lax.Precision.HIGHEST)
    x, y, z = jnp.moveaxis(
        jnp.where(xyz > 216 / 24389, jnp.cbrt(xyz), xyz * 841 / 108 + 4 / 29), -1, 0
    )
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _check_boxes(name: str, masks: Array, boxes: Array) -> None:
    if masks.ndim < 3:
        raise ValueError(f"{name}: expected shape [*b, n, h, w], got {masks.shape}")
    if boxes.shape != (*masks.shape[:-2], 4):
        raise ValueError(f"boxes: expected shape {(*masks.shape[:-2], 4)}, got {boxes.shape}")
