"""Shared by inference from queries: masks at the size of the picture, and checks of inputs."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from segjax.numerics import accumulation_dtype
from segjax.ops.interpolation import resize
from segjax.typing import Array

Shape = tuple[int, int]


def check_queries(class_logits: Array, mask_logits: Array) -> None:
    """Raises a ValueError unless they are `[*b, q, classes + 1]` and `[*b, q, h, w]`."""
    if class_logits.ndim < 2 or class_logits.shape[-1] < 2 or 0 in class_logits.shape[-2:]:
        raise ValueError(
            f"class_logits: expected shape [*b, q, classes + 1], none 0, got {class_logits.shape}"
        )
    if mask_logits.ndim < 3 or mask_logits.shape[:-2] != class_logits.shape[:-1]:
        raise ValueError(
            f"mask_logits: expected shape [*b, q, h, w] for class_logits of {class_logits.shape}, "
            f"got {mask_logits.shape}"
        )


def check_things(things: Array, class_logits: Array) -> None:
    """Raises an error unless they are booleans, one for each class."""
    if things.dtype != bool:
        raise TypeError(f"things: expected bool, got {things.dtype}")
    if things.shape != (class_logits.shape[-1] - 1,):
        raise ValueError(
            f"things: expected shape ({class_logits.shape[-1] - 1},), got {things.shape}"
        )


def on_picture(
    masks: Float[Array, "*b h w"], *, canvas: Shape | None, size: Shape | None
) -> Float[jax.Array, "*b new_h new_w"]:
    """Masks of the picture on its canvas: `resize(masks, canvas)`, cropped to `size`.

    The picture lies at the top left of the canvas, and masks have a fraction of its resolution.

    Args:
      masks: `[*b, h, w]`, floating.
      canvas: (height, width) of the images that the model saw; None leaves the masks as they are.
      size: (height, width) of the picture on the canvas; None for all of it.

    Returns:
      `[*b, *size]`, in at least float32.
    """
    masks = jnp.asarray(masks, accumulation_dtype(masks))
    if canvas is not None:
        masks = resize_masks(masks, canvas)
    if size is not None:
        if size[0] > masks.shape[-2] or size[1] > masks.shape[-1]:
            raise ValueError(
                f"size: expected at most that of the canvas, {masks.shape[-2:]}, got {size}"
            )
        masks = masks[..., : size[0], : size[1]]
    return masks


def resize_masks(
    masks: Shaped[Array, "*b h w"], shape: Shape, *, method: str = "bilinear"
) -> Shaped[jax.Array, "*b new_h new_w"]:
    """`ops.resize` of masks without a channel axis."""
    return resize(masks[..., None], shape, method=method)[..., 0]
