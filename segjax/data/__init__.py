"""Data sources, augmentation, and batches for training and evaluation."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.data.augment import (
        Augmentation,
        affine,
        as_float,
        color_jitter,
        copy_paste,
        cutout,
        gaussian_blur,
        random_blur,
        random_geometry,
    )
    from segjax.data.canvas import plan_canvases
    from segjax.data.coco import Coco
    from segjax.data.coco_panoptic import CocoPanoptic
    from segjax.data.errors import DataError
    from segjax.data.folder import Folder
    from segjax.data.images import read_image
    from segjax.data.instances import panoptic_to_instances
    from segjax.data.loader import eval_batches, train_batches
    from segjax.data.polygons import rasterize_polygons
    from segjax.data.registry import open_source
    from segjax.data.rle import decode_rle, encode_rle
    from segjax.data.source import Classes, Source
    from segjax.data.synthetic import (
        OUTLINES,
        VOCABULARY,
        SceneStyle,
        Synthetic,
        caption_text,
        scene,
    )
    from segjax.data.tfds import Tfds
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
