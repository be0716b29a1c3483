"""Array aliases and the records that data, models, losses and metrics hand to one another.

Shapes are written as jaxtyping strings: `*b` stands for any number of leading batch axes, `h w`
for rows and columns, `c` for channels, `n` for the padded number of objects. Every record is a
registered dataclass, and so a pytree: `jit`, `vmap`, `pmap` and `jax.tree.map` take it as it is.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Array = jax.Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Instances:
    """Objects of an image, padded to a static number.

    Attributes:
      boxes: `[*b, n, 4]`, xyxy in continuous pixels.
      classes: int32 `[*b, n]`.
      valid: `[*b, n]`, False for padding.
      scores: `[*b, n]` in 0..1, for predictions.
      masks: `[*b, n, h, w]`.
      crowd: `[*b, n]`, True where one mask stands for a group of objects (COCO's iscrowd).
      areas: `[*b, n]`, pixels of the original mask.
    """

    boxes: Float[Array, "*b n 4"]
    classes: Int[Array, "*b n"]
    valid: Bool[Array, "*b n"]
    scores: Float[Array, "*b n"] | None = None
    masks: Bool[Array, "*b n h w"] | None = None
    crowd: Bool[Array, "*b n"] | None = None
    areas: Float[Array, "*b n"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Panoptic:
    """A partition of an image into segments, each of one class.

    Attributes:
      segments: int32 `[*b, h, w]`, a row of the table below; -1 is void.
      classes: int32 `[*b, n]`.
      valid: `[*b, n]`, False for padding.
      crowd: `[*b, n]`, True for a group of objects in one segment.
      scores: `[*b, n]` in 0..1, for predictions.
    """

    segments: Int[Array, "*b h w"]
    classes: Int[Array, "*b n"]
    valid: Bool[Array, "*b n"]
    crowd: Bool[Array, "*b n"] | None = None
    scores: Float[Array, "*b n"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Points:
    """Annotated points.

    Attributes:
      xy: `[*b, n, 2]`, (x, y) in continuous pixels.
      classes: int32 `[*b, n]`.
      valid: `[*b, n]`, False for padding and for points outside the image.
    """

    xy: Float[Array, "*b n 2"]
    classes: Int[Array, "*b n"]
    valid: Bool[Array, "*b n"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Record:
    """One example, or a batch of them, with whichever labels its source has; the rest is None.

    Attributes:
      image: `[*b, h, w, c]`; uint8 in 0..255, or floating in 0..1.
      labels: int32 class of each pixel, `[*b, h, w]`; anything where `where` is False.
      where: `[*b, h, w]`, False for void pixels: those no loss or metric may count.
      size: int32 `[*b, 2]`, (height, width) of the picture at the top left of its canvas.
      instances: the objects.
      panoptic: the segments.
      edges: `[*b, h, w]`, pixels on a border between segments.
      points: annotated points, one or more an object.
      scribbles: `[*b, h, w]`, pixels that a scribble covers; their class is in `labels`.
      tags: `[*b, num_classes]`, which classes the image holds.
      captions: int32 `[*b, n, words]`, a phrase for each object; words index a vocabulary.
      index: int32 `[*b]`, the example's place in the stream; its random numbers follow from it.
      valid: `[*b]`, False for an example that only fills up a batch.
    """

    image: UInt8[Array, "*b h w c"] | Float[Array, "*b h w c"] | None = None
    labels: Int[Array, "*b h w"] | None = None
    where: Bool[Array, "*b h w"] | None = None
    size: Int[Array, "*b 2"] | None = None
    instances: Instances | None = None
    panoptic: Panoptic | None = None
    edges: Bool[Array, "*b h w"] | None = None
    points: Points | None = None
    scribbles: Bool[Array, "*b h w"] | None = None
    tags: Bool[Array, "*b classes"] | None = None
    captions: Int[Array, "*b n words"] | None = None
    index: Int[Array, "*b"] | None = None
    valid: Bool[Array, "*b"] | None = None

    def require(self, field: str) -> Any:
        """The array of a field that must be there; a ValueError that names it where it is not."""
        value = getattr(self, field)
        if value is None:
            raise ValueError(f"record has no {field}")
        return value

    def replace(self, **changes: Any) -> "Record":
        """The same record with some fields changed."""
        return dataclasses.replace(self, **changes)
