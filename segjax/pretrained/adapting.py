"""Arrays of another size made to fit: kernels for other channels, embeddings for other images."""

import math

import jax.numpy as jnp
import numpy as np

from segjax import ops


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The first kernel for images of other channels, `w'_i = w_{i mod c} · c / c'`; for one, `Σ w`.

    So an image whose channels are all alike gives what it gave before.

    Args:
      kernel: `[out, c, …]`, the original's.
      channels: `c'`.

    Returns:
      `[out, c', …]`.

    Example:
      >>> adapt_channels(np.array([[1.0, 2.0, 3.0]]), 1)
      array([[6.]])

    Source: timm's and segmentation-models-pytorch's, which are the same.
    """
    old = kernel.shape[1]
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    return kernel[:, np.arange(channels) % old] * (old / channels)


def resize_positions(
    embedding: np.ndarray, shape: tuple[int, ...], *, method: str = "bicubic"
) -> np.ndarray:
    """Position embeddings of a square grid for another square grid.

    What is more than a square number of them belongs to tokens before the grid's, and stays.

    Args:
      embedding: `[1, p + n², d]`, or `[p + n², d]`.
      shape: that is due: the same with another `n`.
      method: of `ops.resize`; timm and DINOv2 take "bicubic", Segmenter "bilinear".

    Returns:
      Of `shape`.

    Raises:
      ValueError: where the two do not differ in `n` alone.

    Example:
      >>> resize_positions(np.ones((1, 1 + 4, 8)), (1, 1 + 9, 8)).shape
      (1, 10, 8)
    """
    tokens, due = embedding.shape[-2], shape[-2]
    prefix = tokens - math.isqrt(tokens) ** 2
    old, new = math.isqrt(tokens), math.isqrt(due - prefix) if due > prefix else 0
    if (*embedding.shape[:-2], prefix + new**2, embedding.shape[-1]) != shape:
        raise ValueError(f"shape is {shape}; due is {embedding.shape} with another square grid")
    grid = embedding[..., prefix:, :].reshape(*embedding.shape[:-2], old, old, -1)
    grid = _resize(grid, (new, new), method)
    grid = grid.reshape(*embedding.shape[:-2], new**2, -1)
    return np.concatenate([embedding[..., :prefix, :], grid], axis=-2)


def resize_relative(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A table of relative positions in a window for another window, bicubically.

    Args:
      table: `[(2 n − 1)², heads]`, an entry for each offset in two dimensions.
      shape: that is due: the same with another `n`.

    Returns:
      Of `shape`.

    Raises:
      ValueError: where the two do not differ in `n` alone.

    Example:
      >>> resize_relative(np.ones((9, 2)), (25, 2)).shape
      (25, 2)

    Source: Liu et al., "Swin transformer", 2021, section 3.2.
    """
    old, new = math.isqrt(table.shape[0]), math.isqrt(shape[0])
    if old**2 != table.shape[0] or (new**2, table.shape[1]) != shape:
        raise ValueError(f"shape is {shape}; due is {table.shape} with another square window")
    return _resize(table.reshape(old, old, -1), (new, new), "bicubic").reshape(shape)


def _resize(grid: np.ndarray, shape: tuple[int, int], method: str) -> np.ndarray:
    resized = ops.resize(jnp.asarray(grid), shape, method=method)
    return np.asarray(resized).astype(grid.dtype)
