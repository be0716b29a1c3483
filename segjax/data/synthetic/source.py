"""A data source of synthetic scenes."""

import jax
import numpy as np

from segjax.data.palette import default_colors
from segjax.data.source import Classes, Source
from segjax.data.synthetic.scenes import scene
from segjax.data.synthetic.shapes import SHAPES
from segjax.data.synthetic.style import SceneStyle
from segjax.data.synthetic.textures import STUFF
from segjax.typing import Record

_NAMES = (*STUFF, *SHAPES)
_LENGTHS = {"train": 4096, "val": 256, "test": 256}


class Synthetic(Source):
    """Synthetic scenes, drawn on the device from their index.

    `len` is the length of an epoch; indices beyond it give further scenes, so that training need
    not repeat any. Splits share no scene.

    Args:
      split: "train", "val" or "test".
      shape: (height, width) in pixels.
      length: number of examples; None for 4096 in "train" and 256 in the others.
      seed: seed of the scenes.
      style: appearance and difficulty of the scenes.

    Raises:
      ValueError: if there is no such split.

    Example:
      >>> from segjax import data
      >>> source = data.Synthetic("val", length=100)
      >>> len(source), source.read(42).index
      (100, array(42, dtype=int32))
    """

    classes = Classes(
        _NAMES,
        default_colors(len(_NAMES)),
        tuple(name in SHAPES for name in _NAMES),
    )
    channels = 3

    def __init__(
        self,
        split: str = "train",
        *,
        shape: tuple[int, int] = (128, 128),
        length: int | None = None,
        seed: int = 0,
        style: SceneStyle = SceneStyle(),
    ):
        if split not in _LENGTHS:
            raise ValueError(f"split: expected one of {', '.join(_LENGTHS)}, got {split!r}")
        self.split = split
        self.shape = shape
        self.seed = seed
        self.style = style
        self.sizes = np.tile(self.shape, (_LENGTHS[split] if length is None else length, 1))

    def read(self, index: int) -> Record:
        """A record with the index alone; all else is drawn on the device."""
        return Record(index=np.array(index, np.int32))

    def render(self, record: Record) -> Record:
        """Draws the scene of `record.index`."""
        if record.index is None:
            raise ValueError("record.index: expected the number of the scene to draw, got None")
        split = jax.random.fold_in(jax.random.key(self.seed), list(_LENGTHS).index(self.split))
        key = jax.random.fold_in(split, record.index)
        drawn = scene(key, shape=self.shape, style=self.style)
        return drawn.replace(index=record.index, valid=record.valid)
