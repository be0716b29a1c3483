"""Augmentation on the device: pure functions of a random key and one example."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.data.augment.augmentation import Augmentation
    from segjax.data.augment.color import as_float, color_jitter, gaussian_blur, random_blur
    from segjax.data.augment.erasing import cutout
    from segjax.data.augment.geometry import affine, random_geometry
    from segjax.data.augment.pasting import copy_paste
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
