"""The augmentations of a training run, one after the other."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from segjax.data.augment.color import color_jitter, random_blur
from segjax.data.augment.copy_paste import copy_paste
from segjax.data.augment.geometry import random_geometry
from segjax.numerics import accumulation_dtype
from segjax.typing import Record


def cutout(key: jax.Array, record: Record, *, fraction: float = 0.1) -> Record:
    """Hides a rectangle: there the image is its mean colour, and `where` is False.

    The rectangle has the proportions of the image and lies anywhere within it.

    Args:
      key: random key.
      record: the record of one example, without batch axes, its image floating.
      fraction: of the area, in 0..1.

    Returns:
      The example; all but `image` and `where` as before.

    Raises:
      ValueError: if there is no image, or `fraction` is out of 0..1.

    Example:
      >>> record = cutout(jax.random.key(0), Record(image=jnp.ones((4, 4, 3))), fraction=0.25)
      >>> int(jnp.sum(~record.where))
      4

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with
    cutout", 2017.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in 0..1, not {fraction}")
    if record.image is None:
        raise ValueError("record has no image")
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


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random geometry, then colour, blur, cutout, copy-paste; each is off at 0, zoom at 1 1.

    Attributes:
      zoom: Least and largest scale of the picture.
      zoom_from: What zoom is relative to: the picture's own size, or the size at which it fits the
        crop (with zoom 0.1 2, large-scale jitter).
      rotation: Largest angle to either side, in degrees.
      flip: Whether to mirror left and right half of the time.
      brightness: How far the factor of the brightness strays from 1, in 0..1.
      contrast: How far the factor of the contrast strays from 1, in 0..1.
      saturation: How far the factor of the saturation strays from 1, in 0..1.
      hue: Largest turn of the colour circle, in 0..0.5.
      blur: Largest standard deviation of a Gaussian blur, in pixels.
      cutout: Share of the area that a hidden rectangle has, in 0..1.
      copy_paste: How likely an object is pasted into the neighbouring example, in 0..1.
    """

    zoom: tuple[float, float] = (0.5, 2.0)
    zoom_from: Literal["picture", "fit"] = "picture"
    rotation: float = 0.0
    flip: bool = True
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    blur: float = 0.0
    cutout: float = 0.0
    copy_paste: float = 0.0

    def __call__(self, key: jax.Array, record: Record, *, shape: tuple[int, int]) -> Record:
        """One example, augmented.

        Args:
          key: random key.
          record: the record of one example, without batch axes.
          shape: (height, width) of the result.

        Returns:
          The example, its image floating, its `where` and `size` set.
        """
        geometry_key, color_key, blur_key, cutout_key = jax.random.split(key, 4)
        record = random_geometry(
            geometry_key,
            record,
            shape=shape,
            zoom=self.zoom,
            zoom_from=self.zoom_from,
            rotation=self.rotation,
            flip=self.flip,
        )
        assert record.image is not None  # or random_geometry would have said so
        image = color_jitter(
            color_key,
            record.image,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
        )
        if self.blur:
            image = random_blur(blur_key, image, sigma=self.blur)
        record = record.replace(image=image)
        return cutout(cutout_key, record, fraction=self.cutout) if self.cutout else record

    def mix(self, keys: jax.Array, batch: Record, *, things: Sequence[bool] = ()) -> Record:
        """What takes more than one example: copy-paste.

        Args:
          keys: `[b]`, a random key for each example; not those it was augmented with.
          batch: augmented examples, an even number of them where there is something to do.
          things: by class, whether its objects may be pasted; empty: all may.

        Returns:
          The batch.
        """
        if not self.copy_paste:
            return batch
        return copy_paste(keys, batch, things=things, probability=self.copy_paste)
