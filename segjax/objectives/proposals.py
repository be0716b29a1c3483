"""Mask R-CNN: a region proposal network, and heads for classes, boxes and masks."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from segjax import losses
from segjax.matching.proposals import NEITHER
from segjax.models import SampledOutput
from segjax.numerics import Average
from segjax.objectives.records import mask_pixels
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class ProposalObjective:
    """Mask R-CNN's objective: losses of the region proposal network and of the three heads.

    Each term is a mean over the anchors or proposals that the model has sampled. The losses
    themselves are `losses.rpn_loss`, `losses.box_head_loss` and `losses.mask_head_loss`.

    Attributes:
      objectness: Weight of the binary cross-entropy of the anchors' objectness.
      anchor_box: Weight of the smooth L1 loss of the anchors' boxes.
      cross_entropy: Weight of the classification loss of the proposals.
      box: Weight of the smooth L1 loss of the proposals' boxes.
      mask: Weight of the binary cross-entropy of the proposals' masks.

    Example:
      >>> from segjax import objectives, registry
      >>> registry.default_objective("maskrcnn_resnet50_fpn") == objectives.ProposalObjective()
      True

    References:
      He et al., "Mask R-CNN", 2017, section 3, where every term has weight 1.
    """

    tasks: ClassVar[tuple[str, ...]] = ("instance",)

    objectness: float = 1.0
    anchor_box: float = 1.0
    cross_entropy: float = 1.0
    box: float = 1.0
    mask: float = 1.0

    def __call__(
        self,
        outputs: SampledOutput,
        targets: Instances,
        record: Record,
        key: jax.Array | None = None,
    ) -> dict[str, Average]:
        """Computes the weighted loss terms.

        Args:
          outputs: Outputs of the model for the anchors and proposals that it has sampled.
          targets: Padded objects `[b, n]` with masks `[b, n, h, w]`.
          record: Batch, of which `image`, `where` and `valid` are read.
          key: Not used.

        Returns:
          Averages `objectness`, `rpn_box`, `class`, `box` and `mask`.
        """
        anchor_matches, matches = outputs.anchor_matches, outputs.matches
        if record.valid is not None:
            anchor_matches, matches = (
                jnp.where(record.valid[:, None], x, NEITHER) for x in (anchor_matches, matches)
            )
        masks = outputs.mask_logits
        first = slice(masks.shape[1])
        terms = {
            **losses.rpn_loss(
                outputs.objectness, outputs.anchor_deltas, outputs.anchors, anchor_matches, targets
            ),
            **losses.box_head_loss(
                outputs.class_logits, outputs.box_deltas, outputs.proposals, matches, targets
            ),
            **losses.mask_head_loss(
                masks,
                outputs.proposals[:, first],
                matches[:, first],
                targets,
                pixels=mask_pixels(record, targets),
            ),
        }
        weights = {
            "objectness": self.objectness,
            "rpn_box": self.anchor_box,
            "class": self.cross_entropy,
            "box": self.box,
            "mask": self.mask,
        }
        return {name: term * weights[name] for name, term in terms.items()}
