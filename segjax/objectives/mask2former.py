"""Mask2Former: a class and a mask for each query, compared at random and uncertain points."""

import dataclasses

import jax

from segjax import losses
from segjax.models import QueryOutput
from segjax.numerics import Average
from segjax.objectives.sets import SetObjective
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class Mask2FormerObjective(SetObjective):
    """Cross-entropy of the classes, cross-entropy and Dice loss of the masks at points.

    The weights are those of the matching too. See `losses.mask2former_loss`. EoMT is trained with
    the same objective.

    Attributes:
      cross_entropy: Weight of the cross-entropy of the classes.
      mask: Weight of the binary cross-entropy of the masks.
      dice: Weight of the Dice loss of the masks.
      points: Number of points at which masks are compared; fewer do for small images.
      oversample: Candidates for each point, among which the least certain are chosen.
      importance: Share of the points that are chosen so; the others are random.
      no_object: Weight of the queries without an object within the cross-entropy.
      auxiliary: Weight of the same terms after each earlier layer of the decoder.
      matches: Queries that each object is matched with; with more than one, suppression has to
        choose among several predictions of an object.

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
        """`cross_entropy`, `mask_cross_entropy` and `dice`, as in `SetObjective`."""
        assert outputs.mask_logits is not None
        if keys is None:
            raise ValueError("key: expected a random key, to draw the points with, got None")
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
