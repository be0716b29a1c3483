"""MaskFormer: a class and a mask for each query, compared at all pixels."""

import dataclasses

import jax

from segjax import losses
from segjax.models import QueryOutput
from segjax.numerics import Average
from segjax.objectives.sets import SetObjective
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class MaskFormerObjective(SetObjective):
    """Cross-entropy of the classes, focal and Dice loss of the masks at all pixels.

    The weights are those of the matching too. See `losses.maskformer_loss`.

    Attributes:
      cross_entropy: Weight of the cross-entropy of the classes.
      focal: Weight of the focal loss of the masks.
      dice: Weight of the Dice loss of the masks.
      no_object: Weight of the queries without an object within the cross-entropy.
      auxiliary: Weight of the same terms after each earlier layer of the decoder.
      matches: Queries that each object is matched with; with more than one, suppression has to
        choose among several predictions of an object.

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic segmentation", 2021,
      sections 3.3 and 4.
    """

    cross_entropy: float = 1.0
    focal: float = 20.0
    dice: float = 1.0

    def layer_terms(
        self,
        outputs: QueryOutput,
        targets: Instances,
        record: Record,
        where: jax.Array,
        keys: jax.Array | None,
    ) -> dict[str, Average]:
        """`cross_entropy`, `focal` and `dice`, as in `SetObjective`."""
        assert outputs.mask_logits is not None
        return losses.maskformer_loss(
            outputs.class_logits,
            outputs.mask_logits,
            targets,
            where=where,
            examples=record.valid,
            class_weight=self.cross_entropy,
            focal_weight=self.focal,
            dice_weight=self.dice,
            no_object_weight=self.no_object,
        )
