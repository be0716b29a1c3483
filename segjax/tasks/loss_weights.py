"""The weights of the objectives' terms."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SemanticLoss:
    """The weights of the objective's terms.

    Attributes:
      cross_entropy: Weight of the mean softmax cross-entropy over pixels.
      dice: Weight of the mean Dice loss over the classes present in each image.
      lovasz: Weight of the mean Lovász-softmax loss over images.
      auxiliary: Weight of the same terms on the model's first auxiliary output; half as much on
        each one after it.
      label_smoothing: Label smoothing of the cross-entropy, in 0..1.
      class_weights: Weights of the classes in the cross-entropy, one for each; without them all
        weigh alike.
      focal_gamma: Exponent that makes the cross-entropy a focal loss, without label smoothing; 0
        for none.
    """

    cross_entropy: float = 1.0
    dice: float = 1.0
    lovasz: float = 0.0
    auxiliary: float = 0.5
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        if self.focal_gamma and self.label_smoothing:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}; due is 0 with focal_gamma "
                f"{self.focal_gamma}"
            )


@dataclasses.dataclass(frozen=True)
class SetLoss:
    """The weights of the objective's terms, the same in the matching.

    Models with boxes have DETR's objective, the others Mask2Former's, or MaskFormer's.

    Attributes:
      cross_entropy: Weight of the cross-entropy of the classes.
      mask: Weight of the cross-entropy of the masks, or of their focal loss (1 in DETR, 20 in
        MaskFormer).
      dice: Weight of the Dice loss of the masks (1 in DETR and MaskFormer).
      l1: Weight of the L1 distance of the boxes, in models that have boxes.
      giou: Weight of 1 − GIoU of the boxes, in models that have boxes.
      no_object: Weight, within the cross-entropy, of the queries without an object.
      auxiliary: Weight of the same terms after each earlier layer of the decoder.
      points: Number of points at which masks are compared; 0 compares all pixels, with a focal
        loss.
      max_objects: Number of objects of an image that are learnt, the largest first.
      matches: Queries that each object is matched with. One makes a set; with more, one-to-many,
        each object gets several predictions, of which suppression has to choose.
    """

    cross_entropy: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    l1: float = 5.0
    giou: float = 2.0
    no_object: float = 0.1
    auxiliary: float = 1.0
    points: int = 12544
    max_objects: int = 100
    matches: int = 1
