"""The sequence of augmentations of a training run."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from segjax.data import augment

if TYPE_CHECKING:  # options on the command line, which need not wait for JAX
    import jax

    import segjax.typing


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random geometry, then colour, blur, cutout and copy-paste; 0 turns each off, 1 1 the zoom.

    Attributes:
      zoom: Least and largest scale of the picture.
      zoom_from: What zoom is relative to: the picture's own size, or the size at which it fits the
        crop (with zoom 0.1 2, large-scale jitter).
      rotation: Largest angle to either side, in degrees.
      flip: Whether to mirror left and right half of the time.
      brightness: Largest deviation of the brightness factor from 1, in 0..1.
      contrast: Largest deviation of the contrast factor from 1, in 0..1.
      saturation: Largest deviation of the saturation factor from 1, in 0..1.
      hue: Largest turn of the colour circle, in 0..0.5.
      blur: Largest standard deviation of a Gaussian blur, in pixels.
      cutout: Area of a hidden rectangle as a share of the image, in 0..1.
      copy_paste: Probability that an object is pasted into the neighbouring example, in 0..1.
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
        """Augments one example.

        Args:
          key: random key.
          record: the record of one example, without batch axes.
          shape: (height, width) of the result.

        Returns:
          The augmented example, with a floating image, `where` and `size`.
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
        assert record.image is not None  # random_geometry checks this
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
        """Augmentation across examples: copy-paste.

        Args:
          keys: `[b]`, a random key for each example; other keys than for `__call__`.
          batch: augmented examples; an even number if `copy_paste` is above 0.
          things: by class, whether its objects may be pasted; empty: all may.

        Returns:
          The batch with pasted objects.
        """
        if not self.copy_paste:
            return batch
        return augment.copy_paste(keys, batch, things=things, probability=self.copy_paste)
