"""Similarity of image features and text embeddings, and zero-shot labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def cosine_similarity(
    features: Float[Array, "*b d"], text: Float[Array, "c d"]
) -> Float[jax.Array, "*b c"]:
    """Cosine similarity between each pixel's feature and each text: `f·t / (‖f‖ ‖t‖)`.

    Equal rows of `text` give equal similarities, so `jnp.argmax` breaks ties to the smallest index.

    Args:
      features: `[*b, d]`, usually one for each pixel; not necessarily of length 1.
      text: `[c, d]`, the text embedding of each class; not necessarily of length 1.

    Returns:
      `[*b, c]`, in −1..1, at least float32; 0 with gradient 0 for a vector of length 0.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.cosine_similarity(jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 2.0]]))
      Array([[1., 0.]], dtype=float32)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision",
      2021, section 2.3.
    """
    if text.ndim != 2:
        raise ValueError(f"text: expected shape [c, d], got {text.shape}")
    if features.ndim < 1 or features.shape[-1] != text.shape[-1]:
        raise ValueError(f"features: expected shape [..., {text.shape[-1]}], got {features.shape}")
    dtype = accumulation_dtype(features, text)
    features, text = normalize(features.astype(dtype)), normalize(text.astype(dtype))
    return jnp.einsum("...d,cd->...c", features, text, precision="highest")


def zero_shot_labels(
    features: Float[Array, "*b d"], text: Float[Array, "c d"]
) -> Int[jax.Array, "*b"]:
    """Class of each pixel by the most similar text: `argmax_c f·t_c / (‖f‖ ‖t_c‖)`.

    Args:
      features: `[*b, d]`, usually one for each pixel.
      text: `[c, d]`, the text embedding of each class.

    Returns:
      int32 `[*b]`, in 0..c−1; ties go to the smallest index.

    Raises:
      ValueError: If the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.zero_shot_labels(jnp.array([[0.1, 0.2], [1.0, 1.0]]), jnp.eye(2))
      Array([1, 0], dtype=int32)
    """
    return jnp.argmax(cosine_similarity(features, text), axis=-1).astype(jnp.int32)


def normalize(vectors: Float[Array, "*b d"]) -> Float[jax.Array, "*b d"]:
    """Scale vectors to length 1: `v / ‖v‖`; zero vectors stay 0, with gradient 0.

    Args:
      vectors: `[*b, d]`, floating.

    Returns:
      `[*b, d]`, in the dtype of `vectors`.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.ops.similarity import normalize
      >>> normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
      Array([[0.6, 0.8],
             [0. , 0. ]], dtype=float32)
    """
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    nonzero = largest >= jnp.finfo(vectors.dtype).tiny
    # Lengths are computed after scaling by the largest entry, whose square may overflow. The result
    # does not depend on the scale, so neither does the gradient.
    scale = jax.lax.stop_gradient(jnp.where(nonzero, largest, 1))
    scaled = jnp.where(nonzero, vectors, 0) / scale
    squares = jnp.sum(scaled**2, axis=-1, keepdims=True)
    return scaled / jnp.sqrt(jnp.where(nonzero, squares, 1))
