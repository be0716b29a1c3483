"""The outputs of the models."""

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
      logits: `[*b, h, w, classes]` (`[*b, d, h, w, classes]` for volumes), at the size of the image
        or a fraction of it.
      auxiliary: Logits of the auxiliary heads, the most important first, each at its own size.
        Under `jit` they cost nothing if they are not used.
      attention: The attention of each block, `[*b, heads, queries, keys]`, in order; empty unless
        the model returns it.
    """

    logits: Float[jax.Array, "*b h w classes"]
    auxiliary: tuple[Float[jax.Array, "*b ah aw classes"], ...] = ()
    attention: tuple[Float[jax.Array, "*b heads queries keys"], ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QueryOutput:
    """The output of a model with queries: a class for each query, and a mask or a box.

    Attributes:
      class_logits: `[*b, q, classes + 1]`; the last class is "no object".
      boxes: `[*b, q, 4]`, cxcywh as fractions of the image's width and height.
      mask_logits: `[*b, q, h, w]`, at a fraction of the image's size.
      auxiliary: The outputs after each earlier layer of the decoder, in order.
      attention: The attention of each block, `[*b, heads, queries, keys]`, in order; empty unless
        the model returns it.
    """

    class_logits: Float[jax.Array, "*b q classes"]
    boxes: Float[jax.Array, "*b q 4"] | None = None
    mask_logits: Float[jax.Array, "*b q h w"] | None = None
    auxiliary: tuple["QueryOutput", ...] = ()
    attention: tuple[Float[jax.Array, "*b heads queries keys"], ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampledOutput:
    """The output of a detector in training: a sample of its anchors and of its proposals.

    Matches are as in `matching.match_proposals`; -2 is also padding.

    Attributes:
      objectness: `[*b, s]`, logits of the sampled anchors.
      anchor_deltas: `[*b, s, 4]`, box deltas of the sampled anchors.
      anchors: `[*b, s, 4]`, the sampled anchors, xyxy in pixels.
      anchor_matches: int32 `[*b, s]`, the match of each sampled anchor.
      class_logits: `[*b, p, classes + 1]`, logits of the sampled proposals; the first class is the
        background.
      box_deltas: `[*b, p, classes + 1, 4]`, box deltas of the sampled proposals for each class.
      proposals: `[*b, p, 4]`, the sampled proposals, xyxy in pixels.
      matches: int32 `[*b, p]`, the match of each sampled proposal.
      mask_logits: `[*b, m, mh, mw, classes + 1]`, masks of the first m proposals, which include all
        that match an object.
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
    """The output of a detector in inference.

    Attributes:
      objects: `[*b, n]`: boxes, classes, `valid` and scores in descending order; without masks.
      mask_logits: `[*b, n, mh, mw]`, the mask of each object within its box.
    """

    objects: Instances
    mask_logits: Float[jax.Array, "*b n mh mw"]


def join_layers(
    outputs: Iterable[QueryOutput], attention: tuple[jax.Array, ...] = ()
) -> QueryOutput:
    """The last output, with the others as its auxiliary outputs."""
    *auxiliary, last = outputs
    return dataclasses.replace(last, auxiliary=tuple(auxiliary), attention=attention)
