"""Conversion of panoptic segments to instances."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from segjax.labels import as_int32, valid_labels
from segjax.ops.masks import masks_to_boxes
from segjax.typing import Array, Instances, Panoptic


def panoptic_to_instances(
    panoptic: Panoptic,
    *,
    things: Sequence[bool] | None = None,
    max_instances: int | None = None,
) -> Instances:
    """Converts panoptic segments to instances: `mask_i = (segments == i)`, with its box and area.

    Args:
      panoptic: segments `[*b, h, w]` and their table `[*b, n]`.
      things: for each class, whether its segments are taken, as in `Classes.things`; None or empty
        takes all.
      max_instances: m; the m largest are kept, in descending order of their areas. None keeps every
        row in its place, and those not taken are not valid.

    Returns:
      Instances `[*b, m]`, or `[*b, n]`; invalid ones have no pixel.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> from segjax.typing import Panoptic
      >>> zeros = jnp.zeros(2, jnp.int32)
      >>> panoptic = Panoptic(jnp.array([[0, 1, 1, -1]]), zeros, jnp.array([True, True]))
      >>> data.panoptic_to_instances(panoptic, max_instances=1).boxes
      Array([[1., 0., 3., 1.]], dtype=float32)
    """
    segments, classes = as_int32(panoptic.segments), as_int32(panoptic.classes)
    n = classes.shape[-1]
    areas = segment_areas(segments, n)
    valid = panoptic.valid & (areas > 0) & of_things(classes, things)
    rows = jnp.broadcast_to(jnp.arange(n), classes.shape)
    if max_instances is not None:
        missing = [(0, 0)] * (classes.ndim - 1) + [(0, max(0, max_instances - n))]
        ranks = jnp.pad(jnp.where(valid, areas, -1), missing, constant_values=-1)
        _, rows = jax.lax.top_k(ranks, max_instances)

    def take(values):
        return jnp.take_along_axis(values, rows, axis=-1, mode="fill", fill_value=0)

    valid = take(valid)
    masks = (segments[..., None, :, :] == rows[..., None, None]) & valid[..., None, None]
    return Instances(
        boxes=masks_to_boxes(masks),
        classes=take(classes),
        valid=valid,
        masks=masks,
        crowd=None if panoptic.crowd is None else take(jnp.asarray(panoptic.crowd)),
        areas=jnp.where(valid, take(areas), 0).astype(jnp.float32),
    )


def segment_areas(segments: Int[Array, "*b h w"], rows: int) -> Int[jax.Array, "*b rows"]:
    """The number of pixels of each of `rows` segments; -1 belongs to none."""

    def count(pixels):
        row = jnp.where(pixels < 0, rows, pixels)  # a negative index would count from the end
        return jnp.zeros(rows, jnp.int32).at[row].add(1, mode="drop")

    pixels = segments.reshape(*segments.shape[:-2], segments.shape[-2] * segments.shape[-1])
    return jnp.vectorize(count, signature="(p)->(n)")(pixels)


def of_things(
    classes: Int[Array, "*b n"], things: Sequence[bool] | None
) -> Bool[jax.Array, "*b n"]:
    """Whether each class is a thing: all are if `things` is empty, and invalid classes are not."""
    if not things:
        return jnp.ones(classes.shape, bool)
    classes, known = valid_labels(classes, len(things), name="classes")
    return known & jnp.asarray(things, bool)[classes]
