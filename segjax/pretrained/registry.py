"""What is published of each model: its weights' names, its paper, and the images it takes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from segjax import models
from segjax.models import backbones
from segjax.naming import unknown_name
from segjax.pretrained import recipes
from segjax.pretrained.keys import KeyTable
from segjax.pretrained.tables import (
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


@dataclasses.dataclass(frozen=True)
class Published:
    """What is known of a published model.

    Attributes:
      table: the names of its weights.
      paper: that it is from.
      size: height and width of the images that it is trained on.
      mean: of its images in 0..1, by channel; it is subtracted before the model.
      std: likewise; what is left is divided by it.
      namings: tables of other names that its weights have, by who gives them.
      recipe: for training on from its weights.
    """

    table: KeyTable
    paper: str
    size: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    namings: Mapping[str, KeyTable] = dataclasses.field(default_factory=dict)
    recipe: recipes.Recipe = recipes.DEFAULT


_RESNET = Published(
    torchvision.RESNET_BACKBONE, "He et al. 2015, Deep residual learning", (224, 224)
)
_FCN = Published(
    torchvision.FCN_RESNET, "Long et al. 2015, Fully convolutional", (520, 520), recipe=recipes.FCN
)
_DEEPLABV3 = Published(
    torchvision.DEEPLABV3_RESNET, "Chen et al. 2017, DeepLabV3", (520, 520), recipe=recipes.FCN
)
_DEEPLABV3PLUS = Published(
    smp.DEEPLABV3PLUS_RESNET,
    "Chen et al. 2018, DeepLabV3+",
    (512, 512),
    recipe=recipes.DEEPLABV3PLUS,
)
_MOBILENET = Published(mobilenet.MOBILENET_V3_LARGE, "Howard et al. 2019, MobileNetV3", (224, 224))
_MIT = Published(
    segformer.MIT,
    "Xie et al. 2021, SegFormer",
    (224, 224),
    namings={"authors": segformer.MIT_AUTHORS},
)
_SEGFORMER = dataclasses.replace(
    _MIT,
    table=segformer.SEGFORMER,
    size=(512, 512),
    namings={"authors": segformer.SEGFORMER_AUTHORS},
    recipe=recipes.SEGFORMER,
)
# Vision transformers by the recipe of ImageNet-21k take images in -1..1.
_VIT = Published(
    vit.VIT,
    "Dosovitskiy et al. 2020, ViT",
    (224, 224),
    mean=(0.5,),
    std=(0.5,),
    namings={"transformers": vit.VIT_TRANSFORMERS},
)
_SEGMENTER = dataclasses.replace(
    _VIT,
    table=vit.SEGMENTER_MASK,
    paper="Strudel et al. 2021, Segmenter",
    size=(512, 512),
    namings={"transformers": vit.SEGMENTER_MASK_TRANSFORMERS},
    recipe=recipes.SEGMENTER,
)
_SEGMENTER_LINEAR = dataclasses.replace(
    _SEGMENTER,
    table=vit.SEGMENTER_LINEAR,
    namings={"transformers": vit.SEGMENTER_LINEAR_TRANSFORMERS},
)
_DINOV2 = Published(
    vit.DINOV2,
    "Oquab et al. 2023, DINOv2",
    (518, 518),
    namings={"transformers": vit.DINOV2_TRANSFORMERS},
)
_VIT_LINEAR = dataclasses.replace(
    _DINOV2,
    table=vit.VIT_LINEAR,
    namings={"transformers": vit.VIT_LINEAR_TRANSFORMERS},
    recipe=recipes.VIT_LINEAR,
)
_UNET = Published(u_net.UNET, "Ronneberger et al. 2015, U-Net", (572, 572), mean=(0.0,), std=(1.0,))
_UNET_RESNET = Published(
    u_net.UNET_RESNET, "Ronneberger et al. 2015, U-Net", (224, 224), recipe=recipes.UNET_RESNET
)
_DETR = Published(
    detr.DETR,
    "Carion et al. 2020, DETR",
    (800, 1066),
    namings={"authors": detr.DETR_AUTHORS},
    recipe=recipes.DETR,
)
_DETR_PANOPTIC = dataclasses.replace(
    _DETR, table=detr.DETR_PANOPTIC, namings={"authors": detr.DETR_PANOPTIC_AUTHORS}
)
_SWIN = Published(
    swin.SWIN,
    "Liu et al. 2021, Swin transformer",
    (224, 224),
    namings={"authors": swin.AUTHORS, "timm": swin.TIMM},
)
_MASKFORMER = Published(
    maskformer.MASKFORMER_RESNET,
    "Cheng et al. 2021, Per-pixel classification",
    (512, 512),
    recipe=recipes.MASKFORMER,
)
_MASKFORMER_SWIN = dataclasses.replace(
    _MASKFORMER, table=maskformer.MASKFORMER_SWIN, recipe=recipes.MASKFORMER_SWIN
)
_MASK2FORMER = Published(
    mask2former.MASK2FORMER_RESNET,
    "Cheng et al. 2022, Masked-attention mask",
    (1024, 1024),
    recipe=recipes.MASK2FORMER,
)
_MASK2FORMER_SWIN = dataclasses.replace(_MASK2FORMER, table=mask2former.MASK2FORMER_SWIN)
_MASK_RCNN = Published(
    mask_rcnn.MASK_RCNN, "He et al. 2017, Mask R-CNN", (800, 1088), recipe=recipes.MASK_RCNN
)
_EOMT = Published(
    eomt.EOMT,
    "Kerssies et al. 2025, Your ViT is secretly",
    (640, 640),
    namings={"authors": eomt.EOMT_AUTHORS},
    recipe=recipes.EOMT,
)
_EOMT_DINOV3 = Published(
    eomt.EOMT_DINOV3,
    "Kerssies et al. 2025, Your ViT is secretly",
    (640, 640),
    recipe=recipes.EOMT_DINOV3,
)

PUBLISHED: dict[str, Published] = {
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
        _MOBILENET, table=mobilenet.LRASPP_MOBILENET, size=(520, 520), recipe=recipes.LRASPP
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
}


def find_published(name: str) -> Published:
    """What is published of the model of that name.

    Args:
      name: a key of `PUBLISHED`.

    Returns:
      Its entry.

    Raises:
      ValueError: for an unknown name, with those that come near.

    Example:
      >>> find_published("fcn_resnet50").size
      (520, 520)
    """
    if name not in PUBLISHED:
        raise ValueError(unknown_name("published model", name, PUBLISHED))
    return PUBLISHED[name]


def make_published(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The model or the backbone of that name; a backbone takes no notice of the classes."""
    if name in models.MODELS:
        return models.create(name, num_classes, **options)
    return getattr(backbones, name)(**options)
