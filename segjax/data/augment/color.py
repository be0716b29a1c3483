"""Colour and sharpness augmentation, which changes the image alone."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from segjax.numerics import accumulation_dtype
from segjax.typing import Array

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def as_float(
    image: UInt8[Array, "*b h w c"] | Float[Array, "*b h w c"],
) -> Float[jax.Array, "*b h w c"]:
    """An image in 0..1: `image / 255` for uint8; a floating one as it is.

    Args:
      image: `[*b, h, w, c]`, uint8 in 0..255, or floating in 0..1.

    Returns:
      `[*b, h, w, c]`, float32 for uint8 images, otherwise the image's dtype.

    Raises:
      TypeError: if `image` has any other dtype.

    Example:
      >>> import numpy as np
      >>> from segjax import data
      >>> data.as_float(np.full((1, 1, 1), 51, np.uint8))
      Array([[[0.2]]], dtype=float32)
    """
    if jnp.issubdtype(image.dtype, jnp.floating):
        return jnp.asarray(image)
    if image.dtype != jnp.uint8:
        raise TypeError(f"image: expected uint8 or floating, got {image.dtype}")
    return jnp.asarray(image, jnp.float32) / 255


def color_jitter(
    key: jax.Array,
    image: Float[Array, "h w c"],
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Float[jax.Array, "h w c"]:
    """Random brightness, contrast, saturation and hue, in this order, clipped to 0..1.

    With factors `f` uniform in `1 - option .. 1 + option`: brightness `f I`, contrast
    `m + f (I - m)` about the mean luma `m`, saturation `l + f (I - l)` about each pixel's luma
    `l = 0.299 R + 0.587 G + 0.114 B`. Hue turns the colours about the grey axis. An option of 0
    leaves the image as it is; so do saturation and hue where there are no three channels.

    Args:
      key: random key.
      image: `[h, w, c]`, floating in 0..1.
      brightness: largest deviation of the factor from 1, in 0..1.
      contrast: largest deviation of the factor from 1, in 0..1.
      saturation: largest deviation of the factor from 1, in 0..1.
      hue: largest turn to either side, in 0..0.5 of the full circle.

    Returns:
      `[h, w, c]`, in the image's dtype.

    Raises:
      ValueError: if an option is out of its range.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> data.color_jitter(jax.random.key(0), jnp.ones((4, 4, 3)), brightness=0.5).shape
      (4, 4, 3)
    """
    _check_range("brightness", brightness, 1.0)
    _check_range("contrast", contrast, 1.0)
    _check_range("saturation", saturation, 1.0)
    _check_range("hue", hue, 0.5)
    draws = jax.random.uniform(key, (4,), minval=-1.0)
    result = image.astype(accumulation_dtype(image))
    if brightness:
        result = (1 + brightness * draws[0]) * result
    if contrast:
        mean = jnp.mean(_luma(result))
        result = mean + (1 + contrast * draws[1]) * (result - mean)
    if saturation and image.shape[-1] == 3:
        luma = _luma(result)
        result = luma + (1 + saturation * draws[2]) * (result - luma)
    if hue and image.shape[-1] == 3:
        result = _turn_hue(result, 2 * jnp.pi * hue * draws[3])
    return jnp.clip(result, 0, 1).astype(image.dtype)


def _check_range(name: str, value: float, largest: float) -> None:
    if not 0 <= value <= largest:
        raise ValueError(f"{name}: expected 0 to {largest}, got {value}")


def _luma(image: Float[Array, "h w c"]) -> Float[jax.Array, "h w 1"]:
    """Luma of three channels; the mean of any other number of channels."""
    weights = _LUMA if image.shape[-1] == 3 else np.float32(1 / image.shape[-1])
    return jnp.sum(weights * image, axis=-1, keepdims=True)


def _turn_hue(image: Float[Array, "h w 3"], angle: Float[Array, ""]) -> Float[jax.Array, "h w 3"]:
    """Rotates RGB about the grey axis (Rodrigues' formula): a third of a circle takes R to G."""
    grey = jnp.mean(image, axis=-1, keepdims=True)
    across = (jnp.roll(image, 1, axis=-1) - jnp.roll(image, -1, axis=-1)) / np.sqrt(3)
    return grey + jnp.cos(angle) * (image - grey) + jnp.sin(angle) * across


def gaussian_blur(
    image: Float[Array, "h w c"], sigma: float | Float[Array, ""]
) -> Float[jax.Array, "h w c"]:
    """`Σ_j w_ij image_j` along both axes, with `w_ij = exp(-(i - j)² / 2σ²) / Σ_k (likewise, k)`.

    The weights sum to 1 at the borders too: no light comes from outside, and none is lost.

    Args:
      image: `[h, w, c]`, floating.
      sigma: scalar, standard deviation in pixels, may be traced; 0 leaves the image as it is.

    Returns:
      `[h, w, c]`, in the image's dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> image = jnp.zeros((1, 5, 1)).at[0, 2].set(1.0)
      >>> data.gaussian_blur(image, 0.5)[0, :, 0].round(1)
      Array([0. , 0.1, 0.8, 0.1, 0. ], dtype=float32)
    """
    dtype = accumulation_dtype(image)
    rows, cols = (_blur_matrix(size, jnp.asarray(sigma, dtype)) for size in image.shape[:2])
    # As matrix products, which XLA does not fuse: a sum of shifted images would compute whatever
    # comes before it once for each shift.
    blurred = jnp.einsum(
        "ih,hwc,jw->ijc", rows, image.astype(dtype), cols, precision=jax.lax.Precision.HIGHEST
    )
    return blurred.astype(image.dtype)


def _blur_matrix(size: int, sigma: Float[jax.Array, ""]) -> Float[jax.Array, "n n"]:
    distance = jnp.arange(size)[:, None] - jnp.arange(size)
    return jax.nn.softmax(-0.5 * (distance / jnp.maximum(sigma, 1e-3)) ** 2, axis=-1)


def random_blur(
    key: jax.Array, image: Float[Array, "h w c"], *, sigma: float = 1.0
) -> Float[jax.Array, "h w c"]:
    """A Gaussian blur of random width, uniform in `0 .. sigma`.

    Args:
      key: random key.
      image: `[h, w, c]`, floating.
      sigma: the largest standard deviation, in pixels.

    Returns:
      `[h, w, c]`, in the image's dtype.

    Raises:
      ValueError: if `sigma` is negative.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> data.random_blur(jax.random.key(0), jnp.ones((4, 4, 3))).shape
      (4, 4, 3)
    """
    if sigma < 0:
        raise ValueError(f"sigma: expected at least 0, got {sigma}")
    return gaussian_blur(image, jax.random.uniform(key, maxval=sigma))
