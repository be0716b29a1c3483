"""Sliding-window inference for large pictures."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from segjax.numerics import accumulation_dtype
from segjax.typing import Array

_LEAST_WEIGHT = 1e-4  # relative to a window's centre, along one axis, so that none is 0


def sliding_window(
    predict: Callable[[jax.Array], jax.Array],
    images: Num[Array, "b h w c"],
    *,
    window: tuple[int, int],
    overlap: float = 0.5,
    sigma: float = 0.125,
) -> Float[jax.Array, "b h w classes"]:
    """Sliding-window inference: the Gaussian-weighted mean over overlapping windows.

    `probs(x) = Σ_k g(x - x_k) predict(window_k)(x) / Σ_k g(x - x_k)`, over the windows k that cover
    pixel x, with `g(d) = exp(-½ Σ_axes (d / (sigma · side))²)` about their centres `x_k`,
    as predictions are better in the middle of a window. Windows lie on a regular grid whose last
    row and column end at the border. A picture smaller than the window has its border repeated to
    the right and below.

    Windows are processed one after the other, so that beyond the result memory does not grow with
    the picture. In reverse mode the residuals of `predict` are kept for every window;
    `jax.checkpoint(predict)` avoids that.

    Args:
      predict: function of images `[b, *window, c]` that returns probabilities, or anything else
        that can be averaged, `[b, *window, classes]`.
      images: `[b, h, w, c]`, of any size.
      window: (height, width) of a window, in pixels.
      overlap: least overlap of neighbouring windows as a share of their side, in [0, 1), rounded to
        pixels.
      sigma: standard deviation of the Gaussian as a share of the window's side; `math.inf` weights
        all pixels equally.

    Returns:
      `[b, h, w, classes]`, in at least float32. Where the windows' predictions sum to 1, so
      does the result.

    Raises:
      ValueError: if an option is out of its range, the picture is empty, or `predict` returns
        another size.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> predict = lambda images: jax.nn.softmax(images)
      >>> images = jnp.linspace(-1, 1, 100 * 70 * 3).reshape(1, 100, 70, 3)
      >>> probs = inference.sliding_window(predict, images, window=(32, 32))
      >>> bool(jnp.allclose(probs, predict(images)))
      True

    References:
      Isensee et al., nnU-Net, Nature Methods 2021, Inference: half a window's overlap, and
      a Gaussian importance of an eighth of its side.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images: expected shape [b, h, w, c], none 0, got {images.shape}")
    if len(window) != 2 or min(window) < 1:
        raise ValueError(f"window: expected two positive sizes (height, width), got {window}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share in [0, 1), got {overlap}")
    if not sigma > 0:
        raise ValueError(f"sigma: expected a positive share of the window's side, got {sigma}")

    height, width = (max(size, side) for size, side in zip(images.shape[1:3], window, strict=True))
    margins = ((0, 0), (0, height - images.shape[1]), (0, width - images.shape[2]), (0, 0))
    canvas = jnp.pad(images, margins, mode="edge")

    tops, row_weights = _partition_of_unity(height, window[0], overlap, sigma)
    lefts, column_weights = _partition_of_unity(width, window[1], overlap, sigma)
    zero = jnp.zeros_like(tops[0])
    grid = [(row, column) for row in range(len(tops)) for column in range(len(lefts))]

    def predict_at(top: jax.Array, left: jax.Array) -> jax.Array:
        crop_shape = (images.shape[0], *window, images.shape[3])
        probs = predict(jax.lax.dynamic_slice(canvas, (zero, top, left, zero), crop_shape))
        return probs.astype(accumulation_dtype(probs))

    window_probs = jax.eval_shape(predict_at, tops[0], lefts[0])
    if window_probs.shape[:-1] != (images.shape[0], *window):
        raise ValueError(
            f"predict: expected a result [{images.shape[0]}, {window[0]}, {window[1]}, classes], "
            f"got {window_probs.shape}"
        )

    def add_window(total: jax.Array, place: jax.Array) -> tuple[jax.Array, None]:
        row, column = place
        corner = (zero, tops[row], lefts[column], zero)
        weights = row_weights[row][:, None, None] * column_weights[column][:, None]
        here = jax.lax.dynamic_slice(total, corner, window_probs.shape)
        here += weights.astype(window_probs.dtype) * predict_at(tops[row], lefts[column])
        return jax.lax.dynamic_update_slice(total, here, corner), None

    # Like the canvas, so that under `shard_map` it varies over the same devices.
    shape = (images.shape[0], height, width, window_probs.shape[-1])
    total = jnp.zeros_like(canvas, window_probs.dtype, shape)
    total, _ = jax.lax.scan(add_window, total, jnp.array(grid))
    return total[:, : images.shape[1], : images.shape[2]]


def _partition_of_unity(
    size: int, side: int, overlap: float, sigma: float
) -> tuple[jax.Array, jax.Array]:
    """First pixels `[n]` of the windows along an axis, and weights `[n, side]` that sum to 1.

    The 2-D Gaussian is the product of its axes and the windows lie on a grid, so the products of
    two axes' weights sum to 1 at every pixel as well.
    """
    stride = max(1, side - round(overlap * side))
    count = math.ceil((size - side) / stride) + 1
    starts = np.round(np.linspace(0, size - side, count)).astype(np.int32)

    distance = (np.arange(side) - (side - 1) / 2) / side
    gaussian = np.maximum(np.exp(-0.5 * (distance / sigma) ** 2), _LEAST_WEIGHT)
    total = np.zeros(size)
    for start in starts:
        total[start : start + side] += gaussian
    weights = [gaussian / total[start : start + side] for start in starts]
    return jnp.asarray(starts), jnp.asarray(np.stack(weights))
