"""Training objectives, one for each paper: from a model's outputs and targets to loss terms."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.objectives.detr import DetrObjective
    from segjax.objectives.mask2former import Mask2FormerObjective
    from segjax.objectives.maskformer import MaskFormerObjective
    from segjax.objectives.objective import Objective
    from segjax.objectives.pixels import PixelObjective
    from segjax.objectives.proposals import ProposalObjective
    from segjax.objectives.sets import SetObjective
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
