"""MaskFormer: a class and a mask for each query, with mask losses over all pixels."""

import dataclasses

import jax

from segjax import losses
from segjax.models import QueryOutput
from segjax.numerics import Average
from segjax.objectives.sets import SetObjective
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class MaskFormerObjective(SetObjective):
    """MaskFormer's objective: cross-entropy of classes, focal and Dice loss of masks.

    The weights also weigh the costs of the matching. The loss itself is `losses.maskformer_loss`.

    Attributes:
      cross_entropy: Weight of the classification loss.
      focal: Weight of the focal loss of the masks.
      dice: Weight of the Dice loss of the masks.
      no_object: Weight of queries without an object in the classification loss.
      auxiliary: Weight of the loss terms of each earlier decoder layer.
      matches: Number of queries that each object is matched with. With more than one, an object
        gets several predictions, of which non-maximum suppression keeps one.

    Example:
      >>> from segjax import objectives, registry
      >>> registry.default_objective("maskformer_swin_tiny") == objectives.MaskFormerObjective()
      True

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
        """The terms `cross_entropy`, `focal` and `dice`."""
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
