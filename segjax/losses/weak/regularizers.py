"""What a prediction costs without any label: its borders, and where no edge of the image is."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype, broadcast_where
from segjax.ops.dense_crf import bilateral_sum
from segjax.typing import Array


def total_variation(
    probs: Float[Array, "*b h w c"],
    *,
    isotropic: bool = False,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w c"]:
    """The steps from every pixel to the next row and column: `|Δ_y p| + |Δ_x p|`.

    Isotropic, `√((Δ_y p)² + (Δ_x p)²)`: a border then costs its length whatever its direction. Of a
    hard mask the plain sum is the length of its border, counted along the edges of pixels.

    Args:
      probs: `[*b, h, w, c]`.
      isotropic: whether the two steps add up as a vector.
      where: broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w, c]`, at least float32. Steps to void pixels or out of the image count 0; flat
      regions have gradient 0.

    Raises:
      ValueError: if `probs` has fewer than 3 axes or `where` does not broadcast.
      TypeError: if `where` is not boolean.

    Example:
      >>> mask = jnp.zeros((5, 5, 1)).at[1:3, 1:4].set(1.0)
      >>> float(total_variation(mask).sum())  # around a rectangle of 2x3
      10.0

    References:
      Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms",
      1992 (isotropic).
    """
    if probs.ndim < 3:
        raise ValueError(f"probs: expected shape [*b, h, w, c], got {probs.shape}")
    valid = broadcast_where(where, probs.shape[:-1])[..., None]
    probs = jnp.where(valid, probs.astype(accumulation_dtype(probs)), 0)

    down, right = (
        jnp.where(valid & _next(valid, axis), _next(probs, axis) - probs, 0) for axis in (-3, -2)
    )
    if not isotropic:
        # Not jnp.abs, whose derivative at 0 is 1.
        return jnp.sign(down) * down + jnp.sign(right) * right
    square = down**2 + right**2
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _next(array: jax.Array, axis: int) -> jax.Array:
    """What stands at the next index of an axis; 0 or False after the last."""
    rest = jax.lax.slice_in_dim(array, 1, None, axis=axis)
    last = jax.lax.slice_in_dim(array, -1, None, axis=axis)
    return jnp.concatenate([rest, jnp.zeros_like(last)], axis)


def gated_crf_loss(
    probs: Float[Array, "*b h w c"],
    image: Float[Array, "*b h w k"],
    *,
    window: int = 5,
    spatial_sigma: float = 6.0,
    color_sigma: float = 0.1,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w"]:
    """The Potts energy between neighbours of like colour: `Σ_{j≠i} k(i, j) Σ_c p_ic (1 − p_jc)`.

    `k(i, j) = exp(−|x_i − x_j|²/2σ² − |I_i − I_j|²/2s²)`, for pixels `j` at most `window` rows and
    columns from `i`. The gates of the paper are `where`.

    Args:
      probs: `[*b, h, w, c]`, probabilities of classes; of one foreground too.
      image: `[*b, h, w, k]`, what colours are compared in; 0..1 suits the default.
      window: in pixels.
      spatial_sigma: `σ`, in pixels.
      color_sigma: `s`, in the units of the image.
      where: broadcasts to `[*b, h, w]`; False for pixels that belong to no pair, whatever they
        hold.

    Returns:
      `[*b, h, w]`, at least float32; every pair is in the values of both its pixels.

    Raises:
      ValueError: if the shapes do not fit together or an option is out of its range.
      TypeError: if `where` is not boolean.

    Example:
      >>> probs = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
      >>> gated_crf_loss(probs, jnp.ones((1, 2, 3)), spatial_sigma=1000.0)
      Array([[0.9999995, 0.9999995]], dtype=float32)

    References:
      Obukhov et al., "Gated CRF loss for weakly supervised semantic image segmentation",
      2019, eq. 3 to 5.
    """
    return _potts_energy(probs, image, spatial_sigma, color_sigma, window, where)


def dense_crf_loss(
    probs: Float[Array, "*b h w c"],
    image: Float[Array, "*b h w k"],
    *,
    spatial_sigma: float = 100.0,
    color_sigma: float = 0.06,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w"]:
    """The Potts energy between all pixels of like colour: `Σ_{j≠i} k(i, j) Σ_c p_ic (1 − p_jc)`.

    `k(i, j) = exp(−|x_i − x_j|²/2σ² − |I_i − I_j|²/2s²)`, exactly, at a cost that grows with the
    square of the number of pixels: for small images, or those made small.

    Args and Returns as of `gated_crf_loss`, with no window.

    Example:
      >>> probs = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
      >>> dense_crf_loss(probs, jnp.ones((1, 2, 3))).round(3)
      Array([[1., 1.]], dtype=float32)

    References:
      Tang et al., "On regularized losses for weakly-supervised CNN segmentation", 2018,
      eq. 4.
    """
    return _potts_energy(probs, image, spatial_sigma, color_sigma, None, where)


def _potts_energy(
    probs: Array,
    image: Array,
    spatial_sigma: float,
    color_sigma: float,
    window: int | None,
    where: Array | None,
) -> jax.Array:
    # Peers take Σ k (1 − p_i·p_j), the same where the probabilities of a pixel sum to 1; written as
    # a difference of two sums, that loses its digits where all agree.
    if probs.ndim < 3 or image.ndim < 3 or probs.shape[:-1] != image.shape[:-1]:
        raise ValueError(
            f"probs has shape {probs.shape} and image {image.shape}; "
            "due are [*b, h, w, c] and [*b, h, w, k]"
        )
    valid = broadcast_where(where, probs.shape[:-1])[..., None]
    probs = jnp.where(valid, probs.astype(accumulation_dtype(probs, image)), 0)
    others = bilateral_sum(
        jnp.where(valid, 1 - probs, 0),
        jnp.where(valid, image, 0),
        spatial_sigma=spatial_sigma,
        color_sigma=color_sigma,
        window=window,
    )
    return jnp.sum(probs * others, axis=-1)
