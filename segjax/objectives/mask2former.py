"""Mask2Former: a class and a mask for each query, with mask losses at sampled points."""

import dataclasses

import jax

from segjax import losses
from segjax.models import QueryOutput
from segjax.numerics import Average
from segjax.objectives.sets import SetObjective
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class Mask2FormerObjective(SetObjective):
    """Mask2Former's objective: cross-entropy of classes, cross-entropy and Dice of masks at points.

    The weights also weigh the costs of the matching. The loss itself is `losses.mask2former_loss`.
    EoMT uses the same objective.

    Attributes:
      cross_entropy: Weight of the classification loss.
      mask: Weight of the binary cross-entropy of the masks.
      dice: Weight of the Dice loss of the masks.
      points: Number of points where masks are compared. Small images need fewer.
      oversample: Number of candidate points per point; the most uncertain ones are used.
      importance: Share of the points that are chosen by uncertainty; the others are random.
      no_object: Weight of queries without an object in the classification loss.
      auxiliary: Weight of the loss terms of each earlier decoder layer.
      matches: Number of queries that each object is matched with. With more than one, an object
        gets several predictions, of which non-maximum suppression keeps one.

    Example:
      >>> from segjax import objectives, registry
      >>> registry.default_objective("eomt_large") == objectives.Mask2FormerObjective()
      True

    References:
      Cheng et al., "Masked-attention mask transformer for universal image segmentation", 2022,
      sections 3.3 and 4.1.
    """

    cross_entropy: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75

    def layer_terms(
        self,
        outputs: QueryOutput,
        targets: Instances,
        record: Record,
        where: jax.Array,
        keys: jax.Array | None,
    ) -> dict[str, Average]:
        """The terms `cross_entropy`, `mask_cross_entropy` and `dice`."""
        assert outputs.mask_logits is not None
        if keys is None:
            raise ValueError("key: expected a random key for the sampling of points, got None")
        return losses.mask2former_loss(
            keys,
            outputs.class_logits,
            outputs.mask_logits,
            targets,
            where=where,
            examples=record.valid,
            points=self.points,
            oversample=self.oversample,
            importance=self.importance,
            class_weight=self.cross_entropy,
            mask_weight=self.mask,
            dice_weight=self.dice,
            no_object_weight=self.no_object,
        )
