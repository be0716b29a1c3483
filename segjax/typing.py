"""Array types and the records that data, models, losses and metrics exchange.

Shapes are written as jaxtyping strings: `*b` stands for any number of leading batch axes, `h w`
for rows and columns, `c` for channels, `n` for the padded number of objects. Every record is a
registered dataclass and so a pytree, which `jit`, `vmap`, `pmap` and `jax.tree.map` accept.
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
    """Instances (objects) of an image, padded to a static number.

    Attributes:
      boxes: `[*b, n, 4]`, xyxy in continuous pixels.
      classes: int32 `[*b, n]`.
      valid: `[*b, n]`, False for padding.
      scores: `[*b, n]` in 0..1, for predictions.
      masks: `[*b, n, h, w]`, boolean.
      crowd: `[*b, n]`, True if one mask covers a group of objects (COCO's iscrowd).
      areas: `[*b, n]`, area of the original mask in pixels.
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
    """Panoptic segmentation: a partition of an image into segments, each of one class.

    Attributes:
      segments: int32 `[*b, h, w]`, index of each pixel's segment in 0..n−1; -1 is void.
      classes: int32 `[*b, n]`, class of each segment.
      valid: `[*b, n]`, False for padding.
      crowd: `[*b, n]`, True for segments that cover a group of objects.
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
    """An example or a batch of examples with the labels that its source has; others are None.

    Attributes:
      image: `[*b, h, w, c]`; uint8 in 0..255, or floating in 0..1.
      labels: int32 `[*b, h, w]`, class of each pixel; anything where `where` is False.
      where: `[*b, h, w]`, False for void pixels, which losses and metrics ignore.
      size: int32 `[*b, 2]`, (height, width) of the image, which is padded at the bottom and right.
      instances: Objects of the image.
      panoptic: Segments of the image.
      edges: `[*b, h, w]`, True at boundaries between segments.
      points: Annotated points, one or more for each object.
      scribbles: `[*b, h, w]`, True on scribbles; the classes are in `labels`.
      tags: `[*b, num_classes]`, True for classes that the image contains.
      captions: int32 `[*b, n, words]`, a phrase for each object as indices into a vocabulary.
      index: int32 `[*b]`, index of the example in the stream, which seeds its random numbers.
      valid: `[*b]`, False for examples that pad the batch.
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
        """The value of a field, or a ValueError if it is None."""
        value = getattr(self, field)
        if value is None:
            raise ValueError(f"record.{field}: expected a value, got None")
        return value

    def replace(self, **changes: Any) -> "Record":
        """A copy of the record with some fields changed."""
        return dataclasses.replace(self, **changes)
