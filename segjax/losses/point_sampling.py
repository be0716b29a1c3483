"""Masks at points: where a prediction is least certain, a few thousand say as much as all pixels.

Points are fractions of the image, (x, y) in 0..1: so masks of different sizes can be asked for the
same ones.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype
from segjax.ops.interpolation import sample
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
    height, width = masks.shape[-2:]
    flat = masks.reshape(-1, height, width).astype(accumulation_dtype(masks))
    points = points * jnp.asarray([width, height], points.dtype)
    values = jax.vmap(lambda mask: sample(mask[..., None], points)[..., 0])(flat)
    return values.reshape(*masks.shape[:-2], len(points))


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
    return candidates[jax.lax.top_k(-jnp.abs(at_candidates), count)[1]]
