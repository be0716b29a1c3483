"""What segjax knows of each model: its objective, inputs, published weights and recipe."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from flax import linen as nn

from segjax import models
from segjax.models import backbones
from segjax.objectives import (
    DetrObjective,
    Mask2FormerObjective,
    MaskFormerObjective,
    Objective,
    PixelObjective,
    ProposalObjective,
)
from segjax.pretrained import recipes
from segjax.pretrained.keys import KeyTable
from segjax.pretrained.tables import (
    clip,
    detr,
    eomt,
    mask2former,
    mask_rcnn,
    maskformer,
    mobilenet,
    segformer,
    smp,
    swin,
    torchvision,
    u_net,
    vit,
)
from segjax.suggestions import unknown_name

Need = Literal["where", "sizes", "targets"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """The registry entry of a model or backbone.

    Attributes:
      objective: Default training objective: that of the model's paper. None for models that are not
        trained on their own, such as backbones.
      needs: Inputs of the model in addition to images: `where`, bool `[b, h, w]`, the pixels that
        are not padding; `sizes`, int `[b, 2]`, (height, width) of the images without padding; and,
        in training, `targets`, the true objects with a random key for each example.
      table: Key names of the published weights; None if there are none.
      namings: Other key names under which weights are published, by publisher, such as "timm".
      paper: Paper that introduced the model.
      size: Height and width in pixels of the images that the model was trained on.
      mean: Mean of each channel of images in 0..1, subtracted from the inputs.
      std: Standard deviation of each channel, by which the inputs are divided.
      recipe: Optimizer settings for fine-tuning the published weights.
    """

    objective: Objective | None = None
    needs: tuple[Need, ...] = ()
    table: KeyTable | None = None
    namings: Mapping[str, KeyTable] = dataclasses.field(default_factory=dict)
    paper: str = ""
    size: tuple[int, int] = (256, 256)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    recipe: recipes.Recipe = recipes.DEFAULT


# Most semantic models were published with the cross-entropy alone, and auxiliary heads at 0.5.
_CROSS_ENTROPY = PixelObjective(dice=0.0)
# segjax's own models have no published weights.
_OWN: dict[str, Any] = {"mean": (0.5,), "std": (0.25,)}
_OWN_PIXELS = Entry(PixelObjective(), **_OWN)

_RESNET = Entry(
    table=torchvision.RESNET_BACKBONE,
    paper="He et al. 2015, Deep residual learning",
    size=(224, 224),
)
_FCN = Entry(
    _CROSS_ENTROPY,
    table=torchvision.FCN_RESNET,
    paper="Long et al. 2015, Fully convolutional",
    size=(520, 520),
    recipe=recipes.FCN,
)
_DEEPLABV3 = dataclasses.replace(
    _FCN, table=torchvision.DEEPLABV3_RESNET, paper="Chen et al. 2017, DeepLabV3"
)
_DEEPLABV3PLUS = Entry(
    _CROSS_ENTROPY,
    table=smp.DEEPLABV3PLUS_RESNET,
    paper="Chen et al. 2018, DeepLabV3+",
    size=(512, 512),
    recipe=recipes.DEEPLABV3PLUS,
)
_MOBILENET = Entry(
    table=mobilenet.MOBILENET_V3_LARGE, paper="Howard et al. 2019, MobileNetV3", size=(224, 224)
)
_MIT = Entry(
    table=segformer.MIT,
    namings={"authors": segformer.MIT_AUTHORS},
    paper="Xie et al. 2021, SegFormer",
    size=(224, 224),
)
_SEGFORMER = Entry(
    _CROSS_ENTROPY,
    table=segformer.SEGFORMER,
    namings={"authors": segformer.SEGFORMER_AUTHORS},
    paper="Xie et al. 2021, SegFormer",
    size=(512, 512),
    recipe=recipes.SEGFORMER,
)
# Vision transformers that were pretrained on ImageNet-21k expect images in -1..1.
_VIT = Entry(
    table=vit.VIT,
    namings={"transformers": vit.VIT_TRANSFORMERS},
    paper="Dosovitskiy et al. 2020, ViT",
    size=(224, 224),
    mean=(0.5,),
    std=(0.5,),
)
_SEGMENTER = dataclasses.replace(
    _VIT,
    objective=_CROSS_ENTROPY,
    table=vit.SEGMENTER_MASK,
    namings={"transformers": vit.SEGMENTER_MASK_TRANSFORMERS},
    paper="Strudel et al. 2021, Segmenter",
    size=(512, 512),
    recipe=recipes.SEGMENTER,
)
_SEGMENTER_LINEAR = dataclasses.replace(
    _SEGMENTER,
    table=vit.SEGMENTER_LINEAR,
    namings={"transformers": vit.SEGMENTER_LINEAR_TRANSFORMERS},
)
_DINOV2 = Entry(
    table=vit.DINOV2,
    namings={"transformers": vit.DINOV2_TRANSFORMERS},
    paper="Oquab et al. 2023, DINOv2",
    size=(518, 518),
)
_VIT_LINEAR = dataclasses.replace(
    _DINOV2,
    objective=_CROSS_ENTROPY,
    table=vit.VIT_LINEAR,
    namings={"transformers": vit.VIT_LINEAR_TRANSFORMERS},
    recipe=recipes.VIT_LINEAR,
)
# Without the paper's weight map for pixels between touching cells, which needs instance labels.
_UNET = Entry(
    _CROSS_ENTROPY,
    table=u_net.UNET,
    paper="Ronneberger et al. 2015, U-Net",
    size=(572, 572),
    mean=(0.0,),
    std=(1.0,),
)
# Published by a library that leaves the objective to its users, so it has segjax's own.
_UNET_RESNET = Entry(
    PixelObjective(),
    table=u_net.UNET_RESNET,
    paper="Ronneberger et al. 2015, U-Net",
    size=(224, 224),
    recipe=recipes.UNET_RESNET,
)
_DETR = Entry(
    DetrObjective(),
    needs=("where",),
    table=detr.DETR,
    namings={"authors": detr.DETR_AUTHORS},
    paper="Carion et al. 2020, DETR",
    size=(800, 1066),
    recipe=recipes.DETR,
)
_DETR_PANOPTIC = dataclasses.replace(
    _DETR, table=detr.DETR_PANOPTIC, namings={"authors": detr.DETR_PANOPTIC_AUTHORS}
)
_SWIN = Entry(
    table=swin.SWIN,
    namings={"authors": swin.AUTHORS, "timm": swin.TIMM},
    paper="Liu et al. 2021, Swin transformer",
    size=(224, 224),
)
_MASKFORMER = Entry(
    MaskFormerObjective(),
    table=maskformer.MASKFORMER_RESNET,
    paper="Cheng et al. 2021, Per-pixel classification",
    size=(512, 512),
    recipe=recipes.MASKFORMER,
)
_MASKFORMER_SWIN = dataclasses.replace(
    _MASKFORMER, table=maskformer.MASKFORMER_SWIN, recipe=recipes.MASKFORMER_SWIN
)
_MASK2FORMER = Entry(
    Mask2FormerObjective(),
    table=mask2former.MASK2FORMER_RESNET,
    paper="Cheng et al. 2022, Masked-attention mask",
    size=(1024, 1024),
    recipe=recipes.MASK2FORMER,
)
_MASK2FORMER_SWIN = dataclasses.replace(_MASK2FORMER, table=mask2former.MASK2FORMER_SWIN)
_MASK_RCNN = Entry(
    ProposalObjective(),
    needs=("sizes", "targets"),
    table=mask_rcnn.MASK_RCNN,
    paper="He et al. 2017, Mask R-CNN",
    size=(800, 1088),
    recipe=recipes.MASK_RCNN,
)
_EOMT = Entry(
    Mask2FormerObjective(),
    table=eomt.EOMT,
    namings={"authors": eomt.EOMT_AUTHORS},
    paper="Kerssies et al. 2025, Your ViT is secretly",
    size=(640, 640),
    recipe=recipes.EOMT,
)
_EOMT_DINOV3 = dataclasses.replace(
    _EOMT, table=eomt.EOMT_DINOV3, namings={}, recipe=recipes.EOMT_DINOV3
)

_CLIP = Entry(
    table=clip.CLIP,
    namings={"openai": clip.CLIP_OPENAI},
    paper="Radford et al. 2021, CLIP",
    size=(224, 224),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
_CLIP_RESNET = dataclasses.replace(_CLIP, table=clip.CLIP_RESNET, namings={})
_CLIPSEG = dataclasses.replace(
    _RESNET,
    table=clip.CLIPSEG,
    paper="Lüddecke and Ecker 2022, CLIPSeg",
    size=(352, 352),
)
_SIGLIP = Entry(
    table=clip.SIGLIP,
    paper="Zhai et al. 2023, SigLIP",
    size=(224, 224),
    mean=(0.5,),
    std=(0.5,),
)

ENTRIES: dict[str, Entry] = {
    "unet_patch2": _OWN_PIXELS,
    "unet_small": _OWN_PIXELS,
    "unet_tiny": _OWN_PIXELS,
    "detr_tiny": Entry(DetrObjective(), needs=_DETR.needs, **_OWN),
    "mask2former_tiny": Entry(Mask2FormerObjective(), **_OWN),
    "maskrcnn_tiny": Entry(ProposalObjective(), needs=_MASK_RCNN.needs, **_OWN),
    "eomt_tiny": Entry(Mask2FormerObjective(), **_OWN),
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "fcn_resnet50": _FCN,
    "fcn_resnet101": _FCN,
    "deeplabv3_resnet50": _DEEPLABV3,
    "deeplabv3_resnet101": _DEEPLABV3,
    **{f"deeplabv3plus_resnet{depth}": _DEEPLABV3PLUS for depth in (34, 50, 101)},
    "mobilenet_v3_large": _MOBILENET,
    "mobilenet_v3_small": dataclasses.replace(_MOBILENET, table=mobilenet.MOBILENET_V3_SMALL),
    "deeplabv3_mobilenet_v3_large": dataclasses.replace(
        _DEEPLABV3, table=mobilenet.DEEPLABV3_MOBILENET, recipe=recipes.DEEPLABV3_MOBILENET
    ),
    "lraspp_mobilenet_v3_large": dataclasses.replace(
        _MOBILENET,
        objective=_CROSS_ENTROPY,
        table=mobilenet.LRASPP_MOBILENET,
        size=(520, 520),
        recipe=recipes.LRASPP,
    ),
    "unet": _UNET,
    "unet_resnet18": _UNET_RESNET,
    "unet_resnet34": _UNET_RESNET,
    "unet_resnet50": _UNET_RESNET,
    **{f"mit_b{i}": _MIT for i in range(6)},
    **{f"segformer_b{i}": _SEGFORMER for i in range(6)},
    **{f"vit_{size}_patch16": _VIT for size in ("tiny", "small", "base", "large")},
    **{f"dinov2_{size}": _DINOV2 for size in ("small", "base", "large")},
    **{f"segmenter_{size}_patch16": _SEGMENTER for size in ("tiny", "small", "base")},
    **{f"segmenter_{size}_patch16_linear": _SEGMENTER_LINEAR for size in ("tiny", "small", "base")},
    "segmenter_large_patch16": dataclasses.replace(_SEGMENTER, size=(640, 640)),
    "segmenter_large_patch16_linear": dataclasses.replace(_SEGMENTER_LINEAR, size=(640, 640)),
    **{f"swin_{size}": _SWIN for size in ("tiny", "small", "base", "large")},
    **{f"maskformer_resnet{depth}": _MASKFORMER for depth in (50, 101)},
    **{f"maskformer_swin_{size}": _MASKFORMER_SWIN for size in ("tiny", "small")},
    **{
        f"maskformer_swin_{size}": dataclasses.replace(_MASKFORMER_SWIN, size=(640, 640))
        for size in ("base", "large")
    },
    "mask2former_resnet50": _MASK2FORMER,
    **{
        f"mask2former_swin_{size}": _MASK2FORMER_SWIN for size in ("tiny", "small", "base", "large")
    },
    **{f"eomt_{size}": _EOMT for size in ("small", "base", "large")},
    **{f"eomt_dinov3_{size}": _EOMT_DINOV3 for size in ("small", "base", "large")},
    "maskrcnn_resnet50_fpn": _MASK_RCNN,
    "maskrcnn_resnet50_fpn_v2": dataclasses.replace(
        _MASK_RCNN, table=mask_rcnn.MASK_RCNN_V2, recipe=recipes.MASK_RCNN_V2
    ),
    "detr_resnet50": _DETR,
    "detr_resnet101": _DETR,
    "detr_resnet50_panoptic": _DETR_PANOPTIC,
    "vit_linear": _VIT_LINEAR,
    "clip_vit_base_patch32": _CLIP,
    "clip_vit_base_patch16": _CLIP,
    "clip_vit_large_patch14": _CLIP,
    "clip_vit_large_patch14_336": dataclasses.replace(_CLIP, size=(336, 336)),
    "clip_resnet50": _CLIP_RESNET,
    "clip_resnet101": _CLIP_RESNET,
    "clipseg_rd16": _CLIPSEG,
    "clipseg_rd64": _CLIPSEG,
    "clipseg_rd64_refined": dataclasses.replace(_CLIPSEG, table=clip.CLIPSEG_REFINED),
    "siglip_base_patch16": _SIGLIP,
    "siglip2_base_patch16": dataclasses.replace(_SIGLIP, paper="Tschannen et al. 2025, SigLIP 2"),
}


def find_entry(name: str) -> Entry:
    """Looks up the registry entry of a model or backbone.

    Args:
      name: Name of the model or backbone.

    Returns:
      The entry.

    Raises:
      ValueError: If the name is unknown. The message suggests similar ones.

    Example:
      >>> from segjax.registry import find_entry
      >>> find_entry("maskformer_swin_tiny").objective.focal
      20.0
    """
    if name not in ENTRIES:
        raise ValueError(unknown_name("model", name, ENTRIES))
    return ENTRIES[name]


def default_objective(name: str) -> Objective:
    """The default training objective of a model: that of its paper.

    Args:
      name: Name of the model.

    Returns:
      The objective.

    Raises:
      ValueError: If the name is unknown, or that of a backbone.

    Example:
      >>> from segjax.registry import default_objective
      >>> default_objective("detr_resnet50").l1
      5.0
    """
    objective = find_entry(name).objective
    if objective is None:
        raise ValueError(f"name: expected a model, got the backbone {name!r}")
    return objective


def register(constructor: Callable[..., nn.Module], entry: Entry) -> None:
    """Registers a model of your own under the name of its constructor.

    Afterwards it can be trained, evaluated and saved like the models of segjax, by its name in
    `TrainConfig.model`.

    Args:
      constructor: Function `(num_classes, **options)` that returns the Flax module.
      entry: Registry entry of the model.

    Raises:
      ValueError: If the name is taken.

    Example:
      >>> from segjax import models
      >>> from segjax import objectives
      >>> from segjax.registry import Entry
      >>> from segjax.registry import register
      >>> register(models.unet_tiny, Entry(objectives.PixelObjective()))
      Traceback (most recent call last):
      ValueError: constructor: expected a new name, got 'unet_tiny'
    """
    name = constructor.__name__
    if name in ENTRIES:
        raise ValueError(f"constructor: expected a new name, got {name!r}")
    models.MODELS[name] = constructor
    ENTRIES[name] = entry


def make_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Creates a model or backbone by its name.

    Args:
      name: Name of the model or backbone.
      num_classes: Number of classes; ignored for a backbone and other models without classes.
      **options: Options of its constructor.

    Returns:
      The Flax module.

    Raises:
      ValueError: If an option of a model is unknown.

    Example:
      >>> from segjax.registry import make_model
      >>> make_model("resnet18", 0).stage_sizes
      (2, 2, 2, 2)
    """
    if name in models.MODELS:
        return models.create(name, num_classes, **options)
    return getattr(models if hasattr(models, name) else backbones, name)(**options)
