"""How alike pixels and texts are that live in one embedding space."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def cosine_similarity(
    features: Float[Array, "*b d"], text: Float[Array, "c d"]
) -> Float[jax.Array, "*b c"]:
    """The cosine between each pixel's feature and each text: `f·t / (‖f‖ ‖t‖)`.

    Equal rows of `text` give equal similarities, so that `jnp.argmax` settles a tie between them:
    for the smallest index.

    Args:
      features: `[*b, h, w, d]`, of any length.
      text: `[c, d]`, the embedding of each class's text, of any length.

    Returns:
      `[*b, h, w, c]`, in −1..1, at least float32; 0 with gradient 0 for a vector of length 0.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> cosine_similarity(jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 2.0]]))
      Array([[1., 0.]], dtype=float32)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision",
      2021, section 2.3.
    """
    if text.ndim != 2:
        raise ValueError(f"text has shape {text.shape}; due is [c, d]")
    if features.ndim < 1 or features.shape[-1] != text.shape[-1]:
        raise ValueError(f"features has shape {features.shape}; due is [..., {text.shape[-1]}]")
    dtype = accumulation_dtype(features, text)
    features, text = _unit(features.astype(dtype)), _unit(text.astype(dtype))
    return jnp.einsum("...d,cd->...c", features, text, precision="highest")


def zero_shot_labels(
    features: Float[Array, "*b d"], text: Float[Array, "c d"]
) -> Int[jax.Array, "*b"]:
    """The class whose text is most similar to each pixel: `argmax_c f·t_c / (‖f‖ ‖t_c‖)`.

    Args:
      features: `[*b, h, w, d]`.
      text: `[c, d]`, the embedding of each class's text.

    Returns:
      int32 `[*b, h, w]`; of classes that tie, the one of the smallest index.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> zero_shot_labels(jnp.array([[0.1, 0.2], [1.0, 1.0]]), jnp.eye(2))
      Array([1, 0], dtype=int32)
    """
    return jnp.argmax(cosine_similarity(features, text), axis=-1).astype(jnp.int32)


def _unit(vectors: Array) -> jax.Array:
    """Vectors of length 1, or 0 where they are 0."""
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    nonzero = largest >= jnp.finfo(vectors.dtype).tiny
    # Lengths are taken after scaling by the largest entry, whose square may not be a number; as
    # the result does not depend on the scale, neither does the gradient.
    scale = jax.lax.stop_gradient(jnp.where(nonzero, largest, 1))
    scaled = jnp.where(nonzero, vectors, 0) / scale
    squares = jnp.sum(scaled**2, axis=-1, keepdims=True)
    return scaled / jnp.sqrt(jnp.where(nonzero, squares, 1))
