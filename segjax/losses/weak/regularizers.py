"""Regularizers of predictions without labels: total variation and CRF losses."""

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
    """Total variation at every pixel: `|Δ_y p| + |Δ_x p|`, to the next row and column.

    The isotropic form is `√((Δ_y p)² + (Δ_x p)²)`, in which a boundary costs its length in every
    direction. For a hard mask the sum of the other form is the length of the boundary along the
    edges of pixels.

    Args:
      probs: `[*b, h, w, c]`.
      isotropic: Whether to take the length of the vector of both differences.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w, c]`, at least float32. Differences to void pixels and beyond the image are 0;
      flat regions have gradient 0.

    Raises:
      ValueError: If `probs` has fewer than 3 axes or `where` does not broadcast.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> mask = jnp.zeros((5, 5, 1)).at[1:3, 1:4].set(1.0)
      >>> float(weak.total_variation(mask).sum())  # around a rectangle of 2x3
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
    """The values at the next index of an axis; 0 or False after the last."""
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
    """Gated CRF loss, the Potts energy of nearby pixels: `Σ_{j≠i} k(i, j) Σ_c p_ic (1 − p_jc)`.

    Pixels of similar position and colour should have the same class:
    `k(i, j) = exp(−|x_i − x_j|²/2σ² − |I_i − I_j|²/2s²)`, for pixels `j` at most `window` rows and
    columns from `i`. The gates of the paper are `where`.

    Args:
      probs: `[*b, h, w, c]`, probabilities of the classes, or of the foreground alone (c = 1).
      image: `[*b, h, w, k]`, colours or other features; the defaults suit values in 0..1.
      window: Greatest distance in pixels, along rows and along columns, between the pixels of a
        pair.
      spatial_sigma: Standard deviation `σ` of positions in pixels.
      color_sigma: Standard deviation `s` of colours in the units of `image`.
      where: Broadcasts to `[*b, h, w]`; False for pixels that belong to no pair, whose values may
        be anything.

    Returns:
      `[*b, h, w]`, at least float32; every pair counts at both of its pixels.

    Raises:
      ValueError: If the shapes do not fit together or an option is out of its range.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> probs = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
      >>> weak.gated_crf_loss(probs, jnp.ones((1, 2, 3))).round(1)
      Array([[1., 1.]], dtype=float32)

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
    """Dense CRF loss, the Potts energy of all pixels: `Σ_{j≠i} k(i, j) Σ_c p_ic (1 − p_jc)`.

    Pixels of similar position and colour should have the same class:
    `k(i, j) = exp(−|x_i − x_j|²/2σ² − |I_i − I_j|²/2s²)`. The sum is exact, and its cost quadratic
    in the number of pixels: for small or downscaled images.

    Args:
      probs: `[*b, h, w, c]`, probabilities of the classes, or of the foreground alone (c = 1).
      image: `[*b, h, w, k]`, colours or other features; the defaults suit values in 0..1.
      spatial_sigma: Standard deviation `σ` of positions in pixels.
      color_sigma: Standard deviation `s` of colours in the units of `image`.
      where: Broadcasts to `[*b, h, w]`; False for pixels that belong to no pair, whose values may
        be anything.

    Returns:
      `[*b, h, w]`, at least float32; every pair counts at both of its pixels.

    Raises:
      ValueError: If the shapes do not fit together or an option is out of its range.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.losses import weak
      >>> probs = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
      >>> weak.dense_crf_loss(probs, jnp.ones((1, 2, 3))).round(3)
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
    # Others compute Σ k (1 − p_i·p_j), which is the same if the probabilities of a pixel sum to 1.
    # As a difference of two sums it loses all digits where the pixels agree.
    if probs.ndim < 3 or image.ndim < 3 or probs.shape[:-1] != image.shape[:-1]:
        raise ValueError(
            f"probs, image: expected shapes [*b, h, w, c], [*b, h, w, k], got {probs.shape}, "
            f"{image.shape}"
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
