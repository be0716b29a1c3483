"""Overlaps of detections and objects for average precision."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, UInt32

from segjax.numerics import safe_divide
from segjax.ops.boxes import box_area
from segjax.typing import Array, Instances


def check_detections(
    predictions: Instances, targets: Instances, *, num_classes: int, kind: str
) -> None:
    """Raises the errors that average precisions have in common."""
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    if kind not in ("box", "mask"):
        raise ValueError(f'kind: expected "box" or "mask", got {kind!r}')
    if predictions.scores is None:
        raise ValueError("predictions.scores: expected [*b, n], got None")
    batch = predictions.classes.shape[:-1], targets.classes.shape[:-1]
    if batch[0] != batch[1]:
        raise ValueError(
            f"predictions.classes: expected the batch axes of targets.classes, {batch[1]}, got "
            f"{batch[0]}"
        )
    for name, record in (("predictions", predictions), ("targets", targets)):
        expected = record.classes.shape
        if not expected:
            raise ValueError(f"{name}.classes: expected shape [*b, n], got {expected}")
        if record.valid.shape != expected:
            raise ValueError(f"{name}.valid: expected shape {expected}, got {record.valid.shape}")
        if record.valid.dtype != bool:
            raise TypeError(f"{name}.valid: expected bool, got {record.valid.dtype}")
        if kind == "box" and record.boxes.shape != (*expected, 4):
            raise ValueError(
                f"{name}.boxes: expected shape {(*expected, 4)}, got {record.boxes.shape}"
            )
    if kind == "box":
        return
    if predictions.masks is None or targets.masks is None:
        raise ValueError("predictions.masks, targets.masks: expected [*b, n, h, w], got None")
    if predictions.masks.shape[-2:] != targets.masks.shape[-2:]:
        raise ValueError(
            f"predictions.masks: expected height and width of targets.masks, "
            f"{targets.masks.shape[-2:]}, got {predictions.masks.shape}"
        )


def box_overlaps(a: Array, b: Array, crowd: Array) -> tuple[jax.Array, ...]:
    """IoUs of boxes `[n, 4]` and `[m, 4]`, as `[n, m]`, and the areas of both."""
    areas = box_area(a), box_area(b)
    dtype = areas[0].dtype
    a, b = a[:, None].astype(dtype), b.astype(dtype)
    sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    return _overlaps(jnp.prod(jnp.maximum(sides, 0), axis=-1), *areas, crowd), *areas


def mask_overlaps(a: Array, b: Array, crowd: Array) -> tuple[jax.Array, ...]:
    """IoUs of masks `[n, h, w]` and `[m, h, w]`, as `[n, m]`, and the areas of both."""
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


def _overlaps(
    intersection: jax.Array, detected_area: jax.Array, labelled_area: Array, crowd: Array
) -> Float[jax.Array, "n m"]:
    """The IoU of each pair; for a crowd, the fraction of the detection inside it."""
    union = detected_area[:, None] + jnp.where(crowd, 0, labelled_area - intersection)
    return safe_divide(intersection, union)
