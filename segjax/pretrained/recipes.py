"""How each family's published weights are fine-tuned: the settings of its paper or its authors."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of an optimizer, as `segjax.training.OptimizerConfig` has them.

    Attributes:
      source: where the settings are published, and in what ours differ.
      batch_size: that the learning rate is for, where it is proportional to the batch size; None
        where one rate is published for all.
      name: of the optimizer.
      learning_rate: at its peak.
      schedule: of the learning rate after the warm-up.
      power: of the polynomial schedule.
      drops: of the step schedule.
      warmup: steps of linear warm-up; no more than a tenth of a run.
      weight_decay: decoupled. A coupled one of SGD adds up over the momentum, so it is divided by
        `1 − momentum`.
      momentum: of SGD, or the first of AdamW.
      clip: the largest global norm of a gradient; 0 does not clip.
      backbone: factor of the backbone's learning rate.
      layer_decay: factor of the learning rate from each block of a vision transformer to the one
        before it.
      freeze: patterns of the parameters that stay as they are.
    """

    source: str
    batch_size: int | None = None
    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float
    schedule: Literal["cosine", "poly", "step", "constant"] = "poly"
    power: float = 0.9
    drops: tuple[float, ...] = ()
    warmup: int = 0
    weight_decay: float
    momentum: float = 0.9
    clip: float = 0.0
    backbone: float = 1.0
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()


FCN = Recipe(
    source="torchvision's segmentation references: SGD at 0.02 for batches of 32, decay 1e-4, "
    "poly 0.9; without their tenfold rate of the auxiliary head",
    batch_size=32,
    name="sgd",
    learning_rate=0.02,
    weight_decay=1e-3,
)
MOBILENET = dataclasses.replace(
    FCN,
    source="torchvision's segmentation references: SGD at 0.01 for batches of 32, decay 1e-6, "
    "poly 0.9",
    learning_rate=0.01,
    weight_decay=1e-5,
)
DEEPLABV3PLUS = Recipe(
    source="Chen et al. 2018, DeepLabV3+, section 4: as DeepLabV3, SGD at 0.007 for batches of "
    "16, poly 0.9; decay 4e-5 as in the authors' train.py",
    batch_size=16,
    name="sgd",
    learning_rate=0.007,
    weight_decay=4e-4,
)
UNET_RESNET = Recipe(
    source="segmentation-models-pytorch's training examples: Adam at 2e-4, cosine",
    learning_rate=2e-4,
    schedule="cosine",
    weight_decay=0.0,
)
SEGFORMER = Recipe(
    source="Xie et al. 2021, SegFormer, section 4.1, and the authors' configurations: AdamW at "
    "6e-5, the head at ten times that, decay 0.01, 1,500 steps of warm-up, poly 1.0",
    learning_rate=6e-4,
    backbone=0.1,
    power=1.0,
    warmup=1500,
    weight_decay=0.01,
)
SEGMENTER = Recipe(
    source="Strudel et al. 2021, Segmenter, section 4.1: SGD at 1e-3 for batches of 8, no decay, "
    "poly 0.9",
    batch_size=8,
    name="sgd",
    learning_rate=1e-3,
    weight_decay=0.0,
)
VIT_LINEAR = Recipe(
    source="Oquab et al. 2023, DINOv2, and its ADE20K configuration: a frozen backbone, AdamW at "
    "1e-3, decay 1e-4, 1,500 steps of warm-up, poly 1.0",
    learning_rate=1e-3,
    power=1.0,
    warmup=1500,
    weight_decay=1e-4,
    freeze=("backbone",),
)
DETR = Recipe(
    source="Carion et al. 2020, DETR, section 4: AdamW at 1e-4, the backbone at 1e-5, decay "
    "1e-4, a tenth after two thirds of the training, gradients clipped at 0.1",
    learning_rate=1e-4,
    schedule="step",
    drops=(2 / 3,),
    weight_decay=1e-4,
    clip=0.1,
    backbone=0.1,
)
MASKFORMER = Recipe(
    source="Cheng et al. 2021, MaskFormer, section 4.1, for ResNets: AdamW at 1e-4, decay 1e-4, "
    "the backbone at a tenth, poly 0.9, gradients clipped at 0.01",
    learning_rate=1e-4,
    weight_decay=1e-4,
    clip=0.01,
    backbone=0.1,
)
MASKFORMER_SWIN = Recipe(
    source="Cheng et al. 2021, MaskFormer, section 4.1, for Swin transformers: AdamW at 6e-5, "
    "decay 0.01, 1,500 steps of warm-up, poly 0.9, gradients clipped at 0.01",
    learning_rate=6e-5,
    warmup=1500,
    weight_decay=0.01,
    clip=0.01,
)
MASK2FORMER = Recipe(
    source="Cheng et al. 2022, Mask2Former, section 4.1: AdamW at 1e-4, decay 0.05, the backbone "
    "at a tenth, a tenth after 0.9 and after 0.95 of the training, gradients clipped at "
    "0.01",
    learning_rate=1e-4,
    schedule="step",
    drops=(0.9, 0.95),
    weight_decay=0.05,
    clip=0.01,
    backbone=0.1,
)
EOMT = Recipe(
    source="Kerssies et al. 2025, EoMT, appendix, and the authors' configurations: AdamW at "
    "1e-4, decay 0.05, layer-wise decay 0.8, poly 0.9, gradients clipped at 0.01",
    learning_rate=1e-4,
    warmup=500,
    weight_decay=0.05,
    clip=0.01,
    layer_decay=0.8,
)
MASK_RCNN = Recipe(
    source="He et al. 2017, Mask R-CNN, section 3.1, and torchvision's detection references: SGD "
    "at 0.02 for batches of 16, decay 1e-4, a tenth after 16 and 22 of 26 epochs",
    batch_size=16,
    name="sgd",
    learning_rate=0.02,
    schedule="step",
    drops=(16 / 26, 22 / 26),
    warmup=1000,
    weight_decay=1e-3,
)
# Of models that nobody has published a recipe for.
DEFAULT = Recipe(
    source="segjax's own: a tenth of the rate from scratch",
    learning_rate=3e-4,
    schedule="cosine",
    warmup=50,
    weight_decay=1e-2,
    clip=1.0,
)
