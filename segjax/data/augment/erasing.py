"""Cutout: random rectangles are hidden from the model."""

import jax
import jax.numpy as jnp

from segjax.numerics import accumulation_dtype
from segjax.typing import Record


def cutout(key: jax.Array, record: Record, *, fraction: float = 0.1) -> Record:
    """Cutout: fills a rectangle with the image's mean colour and sets `where` to False there.

    The rectangle has the proportions of the image and lies anywhere within it.

    Args:
      key: random key.
      record: the record of one example, without batch axes, its image floating.
      fraction: area of the rectangle as a share of the image, in 0..1.

    Returns:
      The example with the new `image` and `where`; all else is unchanged.

    Raises:
      ValueError: if there is no image, or `fraction` is out of 0..1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> from segjax.typing import Record
      >>> record = data.cutout(jax.random.key(0), Record(image=jnp.ones((4, 4, 3))), fraction=0.25)
      >>> int(jnp.sum(~record.where))
      4

    References:
      DeVries and Taylor, "Improved regularization of convolutional neural networks with
      cutout", 2017.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected 0 to 1, got {fraction}")
    if record.image is None:
        raise ValueError("record.image: expected an image, got None")
    shape = record.image.shape[:2]
    within = []
    for draw, size in zip(jax.random.uniform(key, (2,)), shape, strict=True):
        length = round(fraction**0.5 * size)
        start = jnp.floor(draw * (size - length + 1))
        position = jnp.arange(size)
        within.append((position >= start) & (position < start + length))
    hole = within[0][:, None] & within[1]
    mean = jnp.mean(record.image, axis=(0, 1), dtype=accumulation_dtype(record.image))
    return record.replace(
        image=jnp.where(hole[..., None], mean.astype(record.image.dtype), record.image),
        where=~hole if record.where is None else record.where & ~hole,
    )
