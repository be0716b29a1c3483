"""DETR: a class and a box for each query, and a mask where the model has a mask head."""

import dataclasses

import jax

from segjax import losses
from segjax.models import QueryOutput
from segjax.numerics import Average
from segjax.objectives.sets import SetObjective
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class DetrObjective(SetObjective):
    """Cross-entropy of the classes, L1 and GIoU of the boxes, focal and Dice loss of the masks.

    The weights of classes and boxes are those of the matching too. See `losses.detr_loss`.

    Attributes:
      cross_entropy: Weight of the cross-entropy of the classes.
      l1: Weight of the L1 distance of the boxes, as fractions of the image.
      giou: Weight of 1 − GIoU of the boxes.
      focal: Weight of the focal loss of the masks, in models that have masks.
      dice: Weight of the Dice loss of the masks, in models that have masks.
      no_object: Weight of the queries without an object within the cross-entropy.
      auxiliary: Weight of the same terms after each earlier layer of the decoder.
      matches: Queries that each object is matched with; with more than one, suppression has to
        choose among several predictions of an object.

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, sections 3.1 and A.2,
      and its authors' defaults.
    """

    cross_entropy: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    focal: float = 1.0
    dice: float = 1.0

    def layer_terms(
        self,
        outputs: QueryOutput,
        targets: Instances,
        record: Record,
        where: jax.Array,
        keys: jax.Array | None,
    ) -> dict[str, Average]:
        """`cross_entropy`, `l1`, `giou`; with masks `focal` and `dice`; as in `SetObjective`."""
        assert outputs.boxes is not None
        return losses.detr_loss(
            outputs.class_logits,
            outputs.boxes,
            targets,
            (where.shape[-2], where.shape[-1]) if record.size is None else record.size,
            mask_logits=outputs.mask_logits,
            where=where,
            examples=record.valid,
            class_weight=self.cross_entropy,
            l1_weight=self.l1,
            giou_weight=self.giou,
            focal_weight=self.focal,
            dice_weight=self.dice,
            no_object_weight=self.no_object,
        )
