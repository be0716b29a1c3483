"""Masks at sampled points, as in PointRend and Mask2Former.

Points are (x, y) in 0..1 as fractions of the image, so that masks of different sizes can be sampled
at the same points.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def sample_masks(
    masks: Float[Array, "*b h w"] | Bool[Array, "*b h w"], points: Float[Array, "p 2"]
) -> Float[jax.Array, "*b p"]:
    """Masks at points, by bilinear interpolation; outside the image they are 0.

    Args:
      masks: `[*b, h, w]`, logits or booleans.
      points: `[p, 2]`, (x, y) as fractions of the image, the same for all masks.

    Returns:
      `[*b, p]`, at least float32, with the values of `torch.nn.functional.grid_sample` at
      `2·points − 1`.

    Raises:
      ValueError: If the shapes are wrong.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.sample_masks(jnp.array([[0.0, 1.0]]), jnp.array([[0.25, 0.5], [0.5, 0.5]]))
      Array([0. , 0.5], dtype=float32)

    References:
      Kirillov et al., "PointRend: image segmentation as rendering", 2020, section 3.
    """
    if masks.ndim < 2:
        raise ValueError(f"masks: expected shape [*b, h, w], got {masks.shape}")
    if points.ndim != 2 or points.shape[-1] != 2:
        raise ValueError(f"points: expected shape [p, 2], got {points.shape}")
    *batch, height, width = masks.shape
    dtype = accumulation_dtype(masks, points)
    # Each row holds one pixel of every mask, so that one gather serves all masks.
    rows = jnp.asarray(masks).reshape(math.prod(batch), height * width).T
    points = jnp.asarray(points, dtype)
    x, across = _neighbours(points[:, 0], width)
    y, down = _neighbours(points[:, 1], height)
    nearest = jax.lax.collapse(width * y[:, None] + x, 0, 2)
    weights = jax.lax.collapse(down[:, None] * across, 0, 2)

    def add(total, corner):
        pixel, weight = corner
        return total + weight[:, None] * rows.at[pixel].get(mode="promise_in_bounds"), None

    # Inside shard_map the carry must vary over the same devices as what is added to it.
    zero = jnp.zeros_like(rows, dtype, shape=()) + jnp.zeros_like(weights, shape=())
    start = jnp.broadcast_to(zero, (len(points), rows.shape[1]))
    # The loop keeps the compiler from computing the weights again for every pixel of the gradient.
    values, _ = jax.lax.scan(add, start, (nearest, weights))
    return values.T.reshape(*batch, len(points))


def _neighbours(coordinates: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The two pixels around each coordinate along one axis, `[2, p]`, and their weights.

    Pixels beyond the border are replaced by the pixel at the border with weight 0.
    """
    places = coordinates * size - 0.5
    before = jnp.floor(places)
    pixels = jnp.stack([before, before + 1])
    weights = jnp.stack([1 - (places - before), places - before])
    inside = (pixels >= 0) & (pixels < size)
    return jnp.clip(pixels, 0, size - 1).astype(jnp.int32), jnp.where(inside, weights, 0)


def uncertain_points(logits: Float[Array, "*b m"], count: int) -> Bool[jax.Array, "*b m"]:
    """The least certain points of each mask: those with the smallest `|logit|`.

    Args:
      logits: `[*b, m]`, the logits of each mask at m candidates.
      count: Number of points to choose for each mask, at most m.

    Returns:
      Booleans `[*b, m]`: `count` of each mask, and those that tie with the last of them. Without
      gradient.

    Raises:
      ValueError: If `count` is not in 0..m.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.uncertain_points(jnp.array([-9.0, 1.0, 3.0]), 2)
      Array([False,  True,  True], dtype=bool)

    References:
      Kirillov et al., "PointRend: image segmentation as rendering", 2020, section 3.1.
    """
    if logits.ndim < 1:
        raise ValueError(f"logits: expected shape [*b, m], got {logits.shape}")
    candidates = logits.shape[-1]
    if not 0 <= count <= candidates:
        raise ValueError(f"count: expected 0..{candidates}, got {count}")
    if count == 0:
        return jnp.zeros(logits.shape, bool)
    distances = jnp.abs(jax.lax.stop_gradient(jnp.asarray(logits, accumulation_dtype(logits))))
    # Floats of at least 0 are in the order of their bits as integers. The threshold is searched
    # between `start` and `end`, below which there are `at_start` and `at_end` numbers.
    as_bits = functools.partial(
        jax.lax.bitcast_convert_type, new_dtype=f"int{8 * distances.dtype.itemsize}"
    )
    as_number = functools.partial(jax.lax.bitcast_convert_type, new_dtype=distances.dtype)
    bits = as_bits(distances)
    end = jnp.max(bits, axis=-1, keepdims=True) + 1
    # A CPU counts several times faster in columns and in small integers.
    beyond = [(0, 0)] * (bits.ndim - 1) + [(0, -candidates % 32)]
    rows = jnp.pad(bits, beyond, constant_values=jnp.iinfo(bits.dtype).max)
    rows = rows.reshape(*bits.shape[:-1], 32, -(-candidates // 32))
    start, at_start = jnp.zeros_like(end), jnp.zeros_like(end)
    at_end = jnp.full_like(end, candidates)

    def is_open(start, end, at_end):
        return (at_end > count) & (end - start > 1)

    def narrow(state):
        turn, start, end, at_start, at_end = state
        # Interpolates as if the numbers were evenly spread; every third time it bisects.
        share = ((count - at_start) / (at_end - at_start)).astype(distances.dtype)
        even = as_bits(as_number(start) + share * (as_number(end) - as_number(start)))
        middle = start + (end - start) // 2
        trial = jnp.clip(jnp.where(turn % 3 == 2, middle, even), start + 1, end - 1)
        in_columns = jnp.sum(rows < trial[..., None], axis=-2, dtype=jnp.int8)
        smaller = jnp.sum(in_columns, axis=-1, keepdims=True, dtype=bits.dtype)
        is_start = is_open(start, end, at_end) & (smaller < count)
        is_end = is_open(start, end, at_end) & (smaller >= count)
        return (
            turn + 1,
            jnp.where(is_start, trial, start),
            jnp.where(is_end, trial, end),
            jnp.where(is_start, smaller, at_start),
            jnp.where(is_end, smaller, at_end),
        )

    state = jnp.zeros_like(end, shape=()), start, end, at_start, at_end
    _, _, end, _, _ = jax.lax.while_loop(
        lambda state: jnp.any(is_open(state[1], state[2], state[4])), narrow, state
    )
    return bits < end
