"""What the models return."""

import dataclasses
from collections.abc import Iterable

import jax
from jaxtyping import Float, Int

from segjax.typing import Instances


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SemanticOutput:
    """The output of a semantic segmentation model.

    Attributes:
      logits: `[*b, h, w, classes]` (`[*b, d, h, w, classes]` for volumes); of the image's size or
        a fraction of it.
      auxiliary: logits of auxiliary heads, from the most important to the least, each of its own
        size. Under `jit` they cost nothing where nobody asks for them.
      attention: on request, the attention of each block, `[*b, heads, queries, keys]`, from the
        first to the last.
    """

    logits: Float[jax.Array, "*b h w classes"]
    auxiliary: tuple[Float[jax.Array, "*b ah aw classes"], ...] = ()
    attention: tuple[Float[jax.Array, "*b heads queries keys"], ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QueryOutput:
    """The output of a model that predicts a set: for each query a class, and a mask or a box.

    Attributes:
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      boxes: `[*b, q, 4]`, cxcywh as fractions of the image's width and height.
      mask_logits: `[*b, q, h, w]`, at a fraction of the image's size.
      auxiliary: the same after each earlier layer of the decoder, from the first to the last.
      attention: on request, the attention of each block, `[*b, heads, queries, keys]`, from the
        first to the last.
    """

    class_logits: Float[jax.Array, "*b q classes"]
    boxes: Float[jax.Array, "*b q 4"] | None = None
    mask_logits: Float[jax.Array, "*b q h w"] | None = None
    auxiliary: tuple["QueryOutput", ...] = ()
    attention: tuple[Float[jax.Array, "*b heads queries keys"], ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampledOutput:
    """What a detector by proposals is trained on: samples of its anchors and of its proposals.

    Both are matched as `matching.match_proposals` does it; -2, neither, also stands for padding.

    Attributes:
      objectness: logits `[*b, s]` of the sampled anchors.
      anchor_deltas: `[*b, s, 4]`, theirs.
      anchors: `[*b, s, 4]`, xyxy in pixels.
      anchor_matches: int32 `[*b, s]`.
      class_logits: `[*b, p, classes + 1]` of the sampled proposals; the first is "background".
      box_deltas: `[*b, p, classes + 1, 4]`, theirs.
      proposals: `[*b, p, 4]`, xyxy in pixels.
      matches: int32 `[*b, p]`.
      mask_logits: `[*b, m, mh, mw, classes + 1]`, of the first m proposals, among which are all
        that have an object.
    """

    objectness: Float[jax.Array, "*b s"]
    anchor_deltas: Float[jax.Array, "*b s 4"]
    anchors: Float[jax.Array, "*b s 4"]
    anchor_matches: Int[jax.Array, "*b s"]
    class_logits: Float[jax.Array, "*b p classes"]
    box_deltas: Float[jax.Array, "*b p classes 4"]
    proposals: Float[jax.Array, "*b p 4"]
    matches: Int[jax.Array, "*b p"]
    mask_logits: Float[jax.Array, "*b m mh mw classes"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DetectionOutput:
    """The objects that a detector by proposals found.

    Attributes:
      objects: `[*b, n]`: boxes, classes, `valid` and scores, the surest first; no masks yet.
      mask_logits: `[*b, n, mh, mw]`, what the mask head says of each object's box.
    """

    objects: Instances
    mask_logits: Float[jax.Array, "*b n mh mw"]


def join_layers(
    outputs: Iterable[QueryOutput], attention: tuple[jax.Array, ...] = ()
) -> QueryOutput:
    """The last of these outputs, with the others as its auxiliary ones."""
    *auxiliary, last = outputs
    return dataclasses.replace(last, auxiliary=tuple(auxiliary), attention=attention)
