"""Effective receptive fields of models, measured by gradients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype
from segjax.ops.masks import masks_to_boxes
from segjax.typing import Array


def effective_receptive_field(
    apply: Callable[[Array], Array],
    images: Float[Array, "b h w c"],
    *,
    position: tuple[int, int] | None = None,
) -> Float[jax.Array, "h w"]:
    """Effective receptive field of one output pixel: `E_q = mean_b Σ_c |∂ Σ_k f_pk / ∂x_qc|`.

    Args:
      apply: Function from images `[b, h, w, c]` to outputs `[b, h', w', k]`, such as
        `lambda x: model.apply(variables, x).logits`.
      images: `[b, h, w, c]`; average over several, since max pooling passes on the gradient to one
        pixel only.
      position: (row, column) of the output pixel `p`; None for the central one.

    Returns:
      `[h, w]`, at least 0 and at least float32; 0 where the output does not depend on the pixel.

    Raises:
      ValueError: If `images` does not have 4 axes, or `position` is outside the output.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> blur = lambda x: x[:, :, 1:] + 2 * x[:, :, :-1]
      >>> analysis.effective_receptive_field(blur, jnp.zeros((1, 1, 4, 1)), position=(0, 1))
      Array([[0., 2., 1., 0.]], dtype=float32)

    References:
      Luo et al., "Understanding the effective receptive field in deep convolutional neural
      networks", 2016, section 2.
    """
    if images.ndim != 4:
        raise ValueError(f"images: expected shape [b, h, w, c], got {images.shape}")
    images = jnp.asarray(images, accumulation_dtype(images))
    height, width = jax.eval_shape(apply, images).shape[1:3]
    row, column = (height // 2, width // 2) if position is None else position
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"position: expected a pixel of {(height, width)}, got {position}")

    def output(images):
        return jnp.sum(apply(images)[:, row, column], dtype=images.dtype)

    gradient = jax.grad(output)(images)
    return jnp.mean(jnp.sum(jnp.abs(gradient), axis=-1), axis=0)


def field_extent(
    field: Float[Array, "*b h w"], *, threshold: float = 0.0
) -> Float[jax.Array, "*b 4"]:
    """Bounding box of a receptive field, where it exceeds a fraction of its maximum.

    Args:
      field: `[*b, h, w]`, at least 0.
      threshold: Fraction of the maximum, in 0..1; 0 includes all nonzero pixels.

    Returns:
      float32 `[*b, 4]`, xyxy in pixels; zeros if the field is 0 everywhere.

    Raises:
      ValueError: If `field` has fewer than 2 axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import analysis
      >>> analysis.field_extent(jnp.zeros((4, 6)).at[1, 2:5].set(jnp.array([0.1, 1.0, 0.1])))
      Array([2., 1., 5., 2.], dtype=float32)
    """
    if field.ndim < 2:
        raise ValueError(f"field: expected shape [*b, h, w], got {field.shape}")
    inside = field > threshold * jnp.max(field, axis=(-2, -1), keepdims=True)
    return masks_to_boxes(inside[..., None, :, :])[..., 0, :]
