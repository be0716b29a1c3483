"""The augmentations of a training run, one after the other."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from segjax.data import augment

if TYPE_CHECKING:  # options on the command line, which need not wait for JAX
    import jax

    import segjax.typing


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

    def __call__(
        self, key: "jax.Array", record: "segjax.typing.Record", *, shape: tuple[int, int]
    ) -> "segjax.typing.Record":
        """One example, augmented.

        Args:
          key: random key.
          record: the record of one example, without batch axes.
          shape: (height, width) of the result.

        Returns:
          The example, its image floating, its `where` and `size` set.
        """
        import jax

        geometry_key, color_key, blur_key, cutout_key = jax.random.split(key, 4)
        record = augment.random_geometry(
            geometry_key,
            record,
            shape=shape,
            zoom=self.zoom,
            zoom_from=self.zoom_from,
            rotation=self.rotation,
            flip=self.flip,
        )
        assert record.image is not None  # or random_geometry would have said so
        image = augment.color_jitter(
            color_key,
            record.image,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
        )
        if self.blur:
            image = augment.random_blur(blur_key, image, sigma=self.blur)
        record = record.replace(image=image)
        if not self.cutout:
            return record
        return augment.cutout(cutout_key, record, fraction=self.cutout)

    def mix(
        self, keys: "jax.Array", batch: "segjax.typing.Record", *, things: Sequence[bool] = ()
    ) -> "segjax.typing.Record":
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
        return augment.copy_paste(keys, batch, things=things, probability=self.copy_paste)
