"""Semantic segmentation: logits to probabilities and labels at the size of the picture."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from segjax.numerics import accumulation_dtype
from segjax.ops.interpolation import resize
from segjax.typing import Array


def semantic_probs(
    logits: Float[Array, "*b h w classes"], shape: tuple[int, int]
) -> Float[jax.Array, "*b height width classes"]:
    """Class probabilities at the size of the picture: `softmax(resize(logits))`.

    As logits are interpolated, borders between classes lie where the logits cross.

    Args:
      logits: `[*b, h, w, classes]`, at any stride.
      shape: (height, width) of the picture, in pixels.

    Returns:
      Probabilities `[*b, height, width, classes]`, in at least float32; they sum to 1.

    Raises:
      ValueError: if `logits` has fewer than 3 axes, or `shape` is not two positive sizes.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> probs = inference.semantic_probs(jnp.zeros((1, 2, 2, 4)), (5, 7))
      >>> probs.shape, float(probs[0, 0, 0, 0])
      ((1, 5, 7, 4), 0.25)

    References:
      Long, Shelhamer and Darrell, Fully Convolutional Networks, 2015, section 3.3.
    """
    if logits.ndim < 3:
        raise ValueError(f"logits: expected shape [*b, h, w, classes], got {logits.shape}")
    logits = logits.astype(accumulation_dtype(logits))
    return jax.nn.softmax(resize(logits, shape), axis=-1)


def semantic_labels(probs: Float[Array, "*b h w classes"]) -> Int32[jax.Array, "*b h w"]:
    """The most probable class of every pixel; the smallest index if there are several.

    `labels = argmax_c probs_c`

    Args:
      probs: probabilities or logits, `[*b, h, w, classes]`.

    Returns:
      Class ids, int32 `[*b, h, w]`.

    Raises:
      ValueError: if `probs` has fewer than 3 axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> inference.semantic_labels(jnp.array([[[[0.2, 0.8], [0.5, 0.5]]]]))
      Array([[[1, 0]]], dtype=int32)
    """
    if probs.ndim < 3:
        raise ValueError(f"probs: expected shape [*b, h, w, classes], got {probs.shape}")
    return jnp.argmax(probs, axis=-1).astype(jnp.int32)
