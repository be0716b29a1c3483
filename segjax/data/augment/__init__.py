"""Augmentation: pure functions of a key and one example, for the device."""

from segjax.data.augment.augmentation import Augmentation, cutout
from segjax.data.augment.color import as_float, color_jitter, gaussian_blur, random_blur
from segjax.data.augment.copy_paste import copy_paste
from segjax.data.augment.geometry import affine, random_geometry
