"""Borders between the regions of a label map."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Integer

from segjax.numerics import broadcast_where
from segjax.typing import Array


def label_edges(
    labels: Integer[Array, "*b h w"], *, where: Bool[Array, "*b h w"] | None = None
) -> Bool[jax.Array, "*b h w"]:
    """The pixels with a 4-neighbour of another label: both sides of every border.

    Args:
      labels: integers `[*b, h, w]`.
      where: `[*b, h, w]`, False for void pixels: they are no edge and make none.

    Returns:
      `[*b, h, w]`, True on edges.

    Raises:
      ValueError: if `labels` has fewer than 2 axes.

    Example:
      >>> label_edges(jnp.array([[0, 0, 1, 1]])).astype(int)
      Array([[0, 1, 1, 0]], dtype=int32)
    """
    if labels.ndim < 2:
        raise ValueError(f"labels has shape {labels.shape}; due is [*b, h, w]")
    valid = broadcast_where(where, labels.shape)
    down = (labels[..., 1:, :] != labels[..., :-1, :]) & valid[..., 1:, :] & valid[..., :-1, :]
    right = (labels[..., 1:] != labels[..., :-1]) & valid[..., 1:] & valid[..., :-1]
    return _both_sides(down, -2) | _both_sides(right, -1)


def _both_sides(border: Bool[Array, "..."], axis: int) -> Bool[jax.Array, "..."]:
    """The pixels before and after each border between neighbours of one axis."""
    border = jnp.moveaxis(border, axis, -1)
    none = jnp.zeros((*border.shape[:-1], 1), bool)
    before, after = (jnp.concatenate(sides, axis=-1) for sides in ([border, none], [none, border]))
    return jnp.moveaxis(before | after, -1, axis)
