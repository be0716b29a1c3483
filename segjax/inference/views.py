"""Test-time augmentation."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype
from segjax.ops.interpolation import resize
from segjax.typing import Array


def average_over_views(
    predict: Callable[[jax.Array], jax.Array],
    images: Float[Array, "b h w c"],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
) -> Float[jax.Array, "b h w classes"]:
    """Test-time augmentation: the mean of the predictions for resized and mirrored pictures.

    `probs = mean_v v⁻¹(predict(v(images)))`, over the views v: each scale, and with `flip`
    also its mirror image. The cost is that of `Σ scale²` predictions, and twice that with `flip`.

    Args:
      predict: function of images `[b, h', w', c]` of any size that returns probabilities
        `[b, h', w', classes]`, such as a model within `sliding_window`.
      images: `[b, h, w, c]`.
      scales: factors of the picture's height and width.
      flip: whether to add the mirror image at each scale.

    Returns:
      `[b, h, w, classes]`, in at least float32. With `scales=(1.0,), flip=False` it is
      `predict(images)`.

    Raises:
      ValueError: if `images` is not of rank 4, or `scales` is empty or not positive.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> predict = lambda images: jax.nn.softmax(images)
      >>> images = jnp.linspace(-1, 1, 8 * 6 * 3).reshape(1, 8, 6, 3)
      >>> inference.average_over_views(predict, images, scales=(0.5, 1.0, 1.5)).shape
      (1, 8, 6, 3)

    References:
      Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017,
      section 4.1 (multi-scale and flipped inputs).
    """
    if images.ndim != 4:
        raise ValueError(f"images: expected shape [b, h, w, c], got {images.shape}")
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales: expected one or more positive factors, got {scales}")
    _, height, width, _ = images.shape

    def at_scale(scale: float) -> jax.Array:
        seen = resize(images, (max(1, round(scale * height)), max(1, round(scale * width))))
        probs = predict(seen)
        probs = probs.astype(accumulation_dtype(probs))
        if flip:
            probs = (probs + _mirror(predict(_mirror(seen)))) / 2
        return resize(probs, (height, width))

    return functools.reduce(jnp.add, map(at_scale, scales)) / len(scales)


def _mirror(images: Array) -> jax.Array:
    return jnp.flip(images, axis=-2)
