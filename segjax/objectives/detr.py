"""DETR: a class and a box for each query, and a mask if the model has a mask head."""

import dataclasses

import jax

from segjax import losses
from segjax.models import QueryOutput
from segjax.numerics import Average
from segjax.objectives.sets import SetObjective
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class DetrObjective(SetObjective):
    """DETR's objective: cross-entropy of classes, L1 and GIoU of boxes, focal and Dice of masks.

    The weights of classes and boxes also weigh the costs of the matching. The loss itself is
    `losses.detr_loss`.

    Attributes:
      cross_entropy: Weight of the classification loss.
      l1: Weight of the L1 distance of the boxes, in fractions of the image size.
      giou: Weight of the box loss 1 − GIoU.
      focal: Weight of the focal loss of the masks, if the model has masks.
      dice: Weight of the Dice loss of the masks, if the model has masks.
      no_object: Weight of queries without an object in the classification loss.
      auxiliary: Weight of the loss terms of each earlier decoder layer.
      matches: Number of queries that each object is matched with. With more than one, an object
        gets several predictions, of which non-maximum suppression keeps one.

    Example:
      >>> from segjax import objectives, registry
      >>> registry.default_objective("detr_resnet50") == objectives.DetrObjective()
      True

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, sections 3.1 and A.2;
      the weights are the defaults of the authors' code.
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
        """The terms `cross_entropy`, `l1`, `giou` and, with masks, `focal` and `dice`."""
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
