"""Losses of masks supervised by boxes, as in BoxInst."""

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
    """Projection loss of masks and boxes: `L(max_y m, max_y b) + L(max_x m, max_x b)`.

    Compares the projections of mask and box onto both axes. `L` is the Dice loss with squared
    denominator, `m` are the probabilities of the mask, and `b` is 1 at pixels whose centres lie in
    the box. The maxima are over columns and over rows.

    Args:
      probs: `[*b, n, h, w]`, in 0..1.
      boxes: `[*b, n, 4]`, xyxy in pixels.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, n]`, in 0..2, at least float32. An empty box, such as a padded one, has gradient 0.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> cross = jnp.array([[[0, 1.0, 0], [1, 1, 1], [0, 1, 0]]])
      >>> weak.box_projection_loss(cross, jnp.array([[0.0, 0.0, 3.0, 3.0]]))  # as for the box
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
    """Pairwise affinity loss, the mean of `−log(m_i m_j + (1 − m_i)(1 − m_j))`.

    Neighbours of similar colour should both be in the mask or both outside. The mean is over the
    pairs of 8-neighbours, `dilation` pixels apart, with at least one pixel in the box and a colour
    similarity `exp(−|c_i − c_j|/2)` of at least `threshold`, where `c` are CIELAB colours and
    `m = sigmoid(logits)`.

    Args:
      logits: `[*b, n, h, w]`, logits of the masks.
      image: `[*b, h, w, 3]`, sRGB in 0..1; without gradient.
      boxes: `[*b, n, 4]`, xyxy in pixels.
      dilation: Distance between neighbours in pixels, at least 1.
      threshold: Least colour similarity of a pair, in 0..1.
      where: Broadcasts to `logits`; False for void pixels, which belong to no pair and whose logits
        may be anything.

    Returns:
      `[*b, n]` in nats, at least float32; 0 for a mask without such pairs.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of its range.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> logits = jnp.array([[[10.0, -10.0, 10.0]]])
      >>> image = jnp.ones((1, 3, 3))
      >>> box = jnp.array([[0.0, 0.0, 3.0, 1.0]])
      >>> weak.pairwise_affinity_loss(logits, image, box).round(3)  # of first and last pixel
      Array([0.], dtype=float32)

    References:
      Tian et al., "BoxInst: high-performance instance segmentation with box annotations",
      2021, section 3 (pairwise affinity loss).
    """
    _check_boxes("logits", logits, boxes)
    expected = (*logits.shape[:-3], *logits.shape[-2:], 3)
    if image.shape != expected:
        raise ValueError(f"image: expected shape {expected}, got {image.shape}")
    if dilation < 1:
        raise ValueError(f"dilation: expected at least 1, got {dilation}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number in 0..1, got {threshold}")
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
    """All pairs of a pixel and the one `rows` and `cols` further that lie in the image."""
    height, width = array.shape[-2:]
    rows, left, right = min(rows, height), min(max(-cols, 0), width), min(max(cols, 0), width)
    here = array[..., : height - rows, left : width - right]
    return here, array[..., rows:, right : width - left]


def _box_masks(boxes: Array, shape: tuple[int, ...]) -> jax.Array:
    """The pixels whose centres each box contains, `[*b, n, h, w]`."""
    y, x = (jnp.arange(size) + 0.5 for size in shape)
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)[..., None]
    in_rows, in_cols = (y0 <= y) & (y < y1), (x0 <= x) & (x < x1)
    return in_rows[..., :, None] & in_cols[..., None, :]


def _lab(image: Array) -> jax.Array:
    """sRGB to CIELAB, with white point D65."""
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
