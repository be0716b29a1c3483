"""Overlaps of detections and objects for average precision."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, UInt32

from segjax.numerics import safe_divide
from segjax.ops.boxes import box_area
from segjax.typing import Array


def box_overlaps(a: Array, b: Array, crowd: Array) -> tuple[jax.Array, ...]:
    """`_overlaps` of boxes `[n, 4]` and `[m, 4]`, and the areas of both."""
    areas = box_area(a), box_area(b)
    dtype = areas[0].dtype
    a, b = a[:, None].astype(dtype), b.astype(dtype)
    sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    return _overlaps(jnp.prod(jnp.maximum(sides, 0), axis=-1), *areas, crowd), *areas


def mask_overlaps(a: Array, b: Array, crowd: Array) -> tuple[jax.Array, ...]:
    """`_overlaps` of masks `[n, h, w]` and `[m, h, w]`, and the areas of both."""
    a, b = _pack(a), _pack(b)
    areas = _count(a), _count(b)
    return _overlaps(_count(a[:, None] & b), *areas, crowd), *areas


def _pack(masks: Bool[Array, "n h w"]) -> UInt32[jax.Array, "n words"]:
    """Packs 32 pixels into a word, so that intersections are counted as the bits of `a & b`."""
    n, height, width = masks.shape
    words = -(-height * width // 32)
    pixels = jnp.pad(masks.reshape(n, height * width), ((0, 0), (0, 32 * words - height * width)))
    bits = pixels.reshape(n, words, 32).astype(jnp.uint32)
    return jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32)


def _count(words: UInt32[jax.Array, "... words"]) -> Float[jax.Array, "..."]:
    return jnp.sum(jax.lax.population_count(words), axis=-1, dtype=jnp.int32).astype(jnp.float32)


def _overlaps(intersection, detected_area, labelled_area, crowd) -> Float[jax.Array, "n m"]:
    """The IoU of each pair; for a crowd, the fraction of the detection inside it."""
    union = detected_area[:, None] + jnp.where(crowd, 0, labelled_area - intersection)
    return safe_divide(intersection, union)
