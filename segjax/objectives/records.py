"""The pixels of a batch that count in a loss, and the random keys of its examples."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from segjax.models.layers import inside
from segjax.typing import Array, Instances, Record


def counted_pixels(record: Record) -> Bool[Array, "*b h w"]:
    """The pixels that are not void, in examples that do not merely fill up the batch."""
    where = record.where
    if where is None:
        where = jnp.ones(record.require("labels").shape, bool)
    return where if record.valid is None else where & record.valid[..., None, None]


def mask_pixels(record: Record, targets: Instances) -> Bool[jax.Array, "b h w"]:
    """The pixels where masks are compared: not void, and not in a crowd."""
    *batch, height, width, _ = record.require("image").shape
    where = jnp.ones((*batch, height, width), bool)
    if record.where is not None:
        where &= record.where
    if targets.crowd is None or targets.masks is None:
        return where
    crowd = targets.masks & (targets.crowd & targets.valid)[..., None, None]
    return where & ~crowd.any(-3)


def picture_pixels(record: Record) -> Bool[jax.Array, "b h w"]:
    """The pixels of the image, without the padding."""
    *batch, height, width, _ = record.require("image").shape
    if record.size is None:
        return jnp.ones((*batch, height, width), bool)
    return inside(record.size, (height, width))


def example_keys(key: jax.Array, record: Record) -> jax.Array:
    """`[b]` random keys, one for each example; they do not depend on the number of devices."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, record.require("index"))
