"""Fine-tuning recipes: the optimizer settings of each model family's paper or authors.

They differ from their sources in that norms and biases have no weight decay, and that the learning
rate always decays to 0. All recipes with Adam use betas (0.9, 0.999).
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Default values for the options of `segjax.training.OptimizerConfig`.

    Attributes:
      source: Where the settings are published, and how they are changed here.
      batch_size: Batch size that the learning rate is for; it is scaled linearly to others. None
        if it is not scaled: for AdamW, and if it was published for several batch sizes.
      name: Optimizer.
      learning_rate: Peak learning rate.
      schedule: Learning rate schedule after the warm-up.
      power: Power of the polynomial decay.
      drops: Points of the training, as shares of all steps, at which the step schedule drops.
      warmup: Number of steps of linear warm-up, shortened to at most a tenth of a run.
      backbone_warmup: Number of steps of the backbone's own warm-up, which begins after the other
        one; shortened likewise.
      weight_decay: Decoupled weight decay. The coupled weight decay of SGD accumulates in the
        momentum, so published values of it are divided by `1 − momentum`.
      momentum: Momentum of SGD, or beta1 of AdamW.
      clip: Maximum global norm of the gradient; 0 does not clip.
      backbone: Learning rate factor of the backbone.
      auxiliary: Learning rate factor of auxiliary heads.
      layer_decay: Learning rate factor from each block of a vision transformer to the one before.
      freeze: Patterns of the paths of frozen parameters.
    """

    source: str
    batch_size: int | None = None
    name: Literal["adamw", "sgd", "nesterov"] = "adamw"
    learning_rate: float
    schedule: Literal["cosine", "poly", "step", "constant"] = "poly"
    power: float = 0.9
    drops: tuple[float, ...] = ()
    warmup: int = 0
    backbone_warmup: int = 0
    weight_decay: float
    momentum: float = 0.9
    clip: float = 0.0
    backbone: float = 1.0
    auxiliary: float = 1.0
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()


FCN = Recipe(
    source="pytorch/vision, references/segmentation/README.md and train.py: SGD at 0.02 for "
    "batches of 32, an auxiliary head at ten times that, decay 1e-4, poly 0.9",
    batch_size=32,
    name="sgd",
    learning_rate=0.02,
    weight_decay=1e-3,
    auxiliary=10.0,
)
DEEPLABV3_MOBILENET = dataclasses.replace(
    FCN,
    source="pytorch/vision, references/segmentation/README.md and train.py: as FCN, but at 0.01, "
    "decay 1e-6",
    learning_rate=0.01,
    weight_decay=1e-5,
)
LRASPP = dataclasses.replace(DEEPLABV3_MOBILENET, auxiliary=1.0)
DEEPLABV3PLUS = Recipe(
    source="Chen et al. 2018, DeepLabV3+, section 4: SGD at 0.007 for batches of 16, poly 0.9; "
    "tensorflow/models, research/deeplab/train.py: decay 1e-4 for ResNets",
    batch_size=16,
    name="sgd",
    learning_rate=0.007,
    weight_decay=1e-3,
)
UNET_RESNET = Recipe(
    source="qubvel-org/segmentation_models.pytorch, examples/camvid_segmentation_multiclass.ipynb: "
    "Adam at 2e-4, cosine",
    learning_rate=2e-4,
    schedule="cosine",
    weight_decay=0.0,
)
SEGFORMER = Recipe(
    source="NVlabs/SegFormer, local_configs/segformer/*/*.py: AdamW at 6e-5 for batches of 8 and "
    "16, the head at ten times that, decay 0.01, 1,500 steps of warm-up, poly 1.0",
    learning_rate=6e-4,
    backbone=0.1,
    power=1.0,
    warmup=1500,
    weight_decay=0.01,
)
SEGMENTER = Recipe(
    source="rstrudel/segmenter, segm/train.py and config.yml: SGD, which in timm has Nesterov's "
    "momentum, at 1e-3 for batches of 8 (ADE20K) and 16 (Pascal Context); 0.01 for Cityscapes; no "
    "decay, poly 0.9",
    name="nesterov",
    learning_rate=1e-3,
    weight_decay=0.0,
)
VIT_LINEAR = Recipe(
    source="facebookresearch/dinov2, dinov2_vits14_ade20k_linear_config.py beside the published "
    "heads: a frozen backbone, AdamW at 1e-3, decay 1e-4, 1,500 steps of warm-up, poly 1.0",
    learning_rate=1e-3,
    power=1.0,
    warmup=1500,
    weight_decay=1e-4,
    freeze=("backbone",),
)
DETR = Recipe(
    source="facebookresearch/detr, main.py: AdamW at 1e-4, the backbone at 1e-5, decay 1e-4, a "
    "tenth after 200 of 300 epochs, gradients clipped at 0.1; batches of 16 there, of 64 in Carion "
    "et al. 2020, section 4",
    learning_rate=1e-4,
    schedule="step",
    drops=(2 / 3,),
    weight_decay=1e-4,
    clip=0.1,
    backbone=0.1,
)
MASKFORMER = Recipe(
    source="facebookresearch/MaskFormer, configs/*/Base-*.yaml, for ResNets: AdamW at 1e-4 for "
    "batches of 16, 32 and 64, the backbone at a tenth, decay 1e-4, poly 0.9 (COCO: a tenth after "
    "two thirds), gradients clipped at 0.01",
    learning_rate=1e-4,
    weight_decay=1e-4,
    clip=0.01,
    backbone=0.1,
)
MASKFORMER_SWIN = Recipe(
    source="facebookresearch/MaskFormer, configs/*/swin/*.yaml: AdamW at 6e-5 for batches of 16 "
    "and 64, decay 0.01, 1,500 steps of warm-up; the rest as for ResNets, but one rate for all",
    learning_rate=6e-5,
    warmup=1500,
    weight_decay=0.01,
    clip=0.01,
)
MASK2FORMER = Recipe(
    source="facebookresearch/Mask2Former, configs/*/*/Base-*.yaml, for every backbone: AdamW at "
    "1e-4, the backbone at a tenth, decay 0.05, poly 0.9 (COCO: a tenth after 8/9 and 26/27), "
    "gradients clipped at 0.01",
    learning_rate=1e-4,
    weight_decay=0.05,
    clip=0.01,
    backbone=0.1,
)
EOMT = Recipe(
    source="tue-mps/eomt, training/mask_classification_*.py, two_stage_warmup_poly_schedule.py "
    "and main.py: AdamW at 1e-4, layer-wise decay 0.8, decay 0.05, 500 steps of warm-up and then "
    "1,000 of the backbone's, poly 0.9, gradients clipped at 0.01",
    learning_rate=1e-4,
    warmup=500,
    backbone_warmup=1000,
    weight_decay=0.05,
    clip=0.01,
    layer_decay=0.8,
)
EOMT_DINOV3 = dataclasses.replace(
    EOMT,
    source="tue-mps/eomt, configs/dinov3/coco/*/*.yaml: as EoMT, but at 2e-4, 2,000 steps of "
    "warm-up and then 3,000 of the backbone's; without the full rate of all blocks with queries",
    learning_rate=2e-4,
    warmup=2000,
    backbone_warmup=3000,
)
MASK_RCNN = Recipe(
    source="pytorch/vision, references/detection/README.md, train.py and engine.py: SGD at 0.02 "
    "for batches of 16, decay 1e-4, 1,000 steps of warm-up, a tenth after 16 and 22 of 26 epochs",
    batch_size=16,
    name="sgd",
    learning_rate=0.02,
    schedule="step",
    drops=(16 / 26, 22 / 26),
    warmup=1000,
    weight_decay=1e-3,
)
MASK_RCNN_V2 = dataclasses.replace(
    MASK_RCNN,
    source="pytorch/vision, pull request 5773: SGD at 0.1 for batches of 64, decay 4e-5, a tenth "
    "after 352 and 384 of 400 epochs; the warm-up of references/detection/engine.py",
    batch_size=64,
    learning_rate=0.1,
    drops=(352 / 400, 384 / 400),
    weight_decay=4e-4,
)
# For segjax's own models, and for the U-Net, whose paper gives a momentum of 0.99 but no learning
# rate.
DEFAULT = Recipe(
    source="segjax's own: a tenth of the learning rate from scratch",
    learning_rate=3e-4,
    schedule="cosine",
    warmup=50,
    weight_decay=1e-2,
    clip=1.0,
)
