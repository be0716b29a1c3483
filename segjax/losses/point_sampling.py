"""Masks at points: where a prediction is least certain, a few thousand say as much as all pixels.

Points are fractions of the image, (x, y) in 0..1: so masks of different sizes can be asked for the
same ones.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def sample_masks(
    masks: Float[Array, "*b h w"] | Bool[Array, "*b h w"], points: Float[Array, "p 2"]
) -> Float[jax.Array, "*b p"]:
    """The masks between the pixels' centres, by bilinear interpolation; outside they are 0.

    Args:
      masks: `[*b, h, w]`, logits or booleans.
      points: `[p, 2]`, (x, y) as fractions of the image, the same for all masks.

    Returns:
      `[*b, p]`, at least float32: `torch.nn.functional.grid_sample`'s values at `2·points − 1`.

    Raises:
      ValueError: if the shapes are wrong.

    Example:
      >>> sample_masks(jnp.array([[0.0, 1.0]]), jnp.array([[0.25, 0.5], [0.5, 0.5]]))
      Array([0. , 0.5], dtype=float32)

    Source: Kirillov et al., "PointRend: image segmentation as rendering", 2020, section 3.
    """
    *batch, height, width = masks.shape
    dtype = accumulation_dtype(masks, points)
    # A pixel is a row that holds its value in every mask: so one look-up serves all masks. Around
    # the image lies a border of zeros, whose corner is the first row.
    pixels = jnp.moveaxis(masks.reshape(math.prod(batch), height, width), 0, -1)
    rows = jax.lax.collapse(jnp.pad(pixels, ((1, 1), (1, 1), (0, 0))), 0, 2)
    points = jnp.asarray(points, dtype)
    x, right = _split(points[:, 0] * width, width)
    y, down = _split(points[:, 1] * height, height)
    nearest = y * (width + 2) + x

    def add(total, corner):
        step, weight = corner
        return total + weight[:, None] * rows.at[nearest + step].get(mode="promise_in_bounds"), None

    steps = np.array([0, 1, width + 2, width + 3])
    weights = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    # A loop keeps the compiler from computing the weights anew for every pixel of the gradient.
    # The first row is 0, and so the start; made thus, it is as spread over devices as the rest.
    start = jax.lax.stop_gradient(weights[0][:, None] * rows[0])
    values = jax.lax.scan(add, start, (steps, jnp.stack(weights)))[0]
    return values.T.reshape(*batch, len(points))


def _split(coordinates: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The pixel before each coordinate of one axis, its border counted, and the way from there."""
    places = jnp.clip(coordinates + 0.5, 0, size + 1)
    first = jnp.minimum(jnp.floor(places), size)
    return first.astype(jnp.int32), places - first


def uncertain_points(
    logits: Float[Array, "h w"], candidates: Float[Array, "m 2"], count: int
) -> Float[jax.Array, "{count} 2"]:
    """Those of the candidates at which a mask is least certain: where `−|logit|` is greatest.

    Args:
      logits: `[h, w]`, of one mask.
      candidates: `[m, 2]`, (x, y) as fractions of the image.
      count: of the points due, at most m.

    Returns:
      `[count, 2]`; no gradient flows through the choice.

    Raises:
      ValueError: if there are fewer candidates than are due.

    Example:
      >>> logits = jnp.array([[-9.0, 1.0]])
      >>> uncertain_points(logits, jnp.array([[0.25, 0.5], [0.75, 0.5]]), 1)
      Array([[0.75, 0.5 ]], dtype=float32)

    Source: Kirillov et al., "PointRend: image segmentation as rendering", 2020, section 3.1.
    """
    if not 0 <= count <= len(candidates):
        raise ValueError(f"count is {count}; due is 0..{len(candidates)}, as many as candidates")
    at_candidates = sample_masks(jax.lax.stop_gradient(logits), candidates)
    chosen = _smallest(jnp.abs(at_candidates), count)
    return jnp.asarray(candidates)[jnp.nonzero(chosen, size=count)[0]]


def _smallest(values: jax.Array, count: int) -> jax.Array:
    """Which of the values, 0 or greater, are the `count` smallest; of equal ones the first.

    The order of such numbers is that of their bits as integers. So the greatest of those due is
    found bit by bit from the highest one: many times faster than by sorting.
    """
    width = values.dtype.itemsize * 8
    bits = jax.lax.bitcast_convert_type(values, f"uint{width}")
    one = jnp.ones((), bits.dtype)

    def refine(place, least):
        trial = least | (one << (width - 2 - place).astype(bits.dtype))
        return jnp.where(jnp.sum(bits < trial) < count, trial, least)

    greatest = jax.lax.fori_loop(0, width - 1, refine, jnp.zeros_like(bits, shape=()))
    smaller, equal = bits < greatest, bits == greatest
    return smaller | equal & (jnp.cumsum(equal) <= count - jnp.sum(smaller))
