"""Models by name."""

import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from segjax.models.deeplab import (
    deeplabv3_mobilenet_v3_large,
    deeplabv3_resnet50,
    deeplabv3_resnet101,
    deeplabv3plus_resnet34,
    deeplabv3plus_resnet50,
    deeplabv3plus_resnet101,
)
from segjax.models.detr import (
    detr_resnet50,
    detr_resnet50_panoptic,
    detr_resnet101,
    detr_tiny,
)
from segjax.models.eomt import (
    eomt_base,
    eomt_dinov3_base,
    eomt_dinov3_large,
    eomt_dinov3_small,
    eomt_large,
    eomt_small,
    eomt_tiny,
)
from segjax.models.fcn import fcn_resnet50, fcn_resnet101
from segjax.models.lraspp import lraspp_mobilenet_v3_large
from segjax.models.mask2former import (
    mask2former_resnet50,
    mask2former_swin_base,
    mask2former_swin_large,
    mask2former_swin_small,
    mask2former_swin_tiny,
    mask2former_tiny,
)
from segjax.models.mask_rcnn import (
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    maskrcnn_tiny,
)
from segjax.models.maskformer import (
    maskformer_resnet50,
    maskformer_resnet101,
    maskformer_swin_base,
    maskformer_swin_large,
    maskformer_swin_small,
    maskformer_swin_tiny,
)
from segjax.models.segformer import (
    segformer_b0,
    segformer_b1,
    segformer_b2,
    segformer_b3,
    segformer_b4,
    segformer_b5,
)
from segjax.models.segmenter import (
    segmenter_base_patch16,
    segmenter_base_patch16_linear,
    segmenter_large_patch16,
    segmenter_large_patch16_linear,
    segmenter_small_patch16,
    segmenter_small_patch16_linear,
    segmenter_tiny_patch16,
    segmenter_tiny_patch16_linear,
    vit_linear,
)
from segjax.models.u_net import unet, unet_patch2, unet_small, unet_tiny
from segjax.models.u_net_resnet import unet_resnet18, unet_resnet34, unet_resnet50
from segjax.suggestions import unknown_name

MODELS: dict[str, Callable[..., nn.Module]] = {
    function.__name__: function
    for function in (
        unet,
        unet_small,
        unet_tiny,
        unet_patch2,
        unet_resnet18,
        unet_resnet34,
        unet_resnet50,
        fcn_resnet50,
        fcn_resnet101,
        deeplabv3_resnet50,
        deeplabv3_resnet101,
        deeplabv3_mobilenet_v3_large,
        deeplabv3plus_resnet34,
        deeplabv3plus_resnet50,
        deeplabv3plus_resnet101,
        lraspp_mobilenet_v3_large,
        mask2former_resnet50,
        mask2former_swin_tiny,
        mask2former_swin_small,
        mask2former_swin_base,
        mask2former_swin_large,
        mask2former_tiny,
        maskrcnn_resnet50_fpn,
        maskrcnn_resnet50_fpn_v2,
        maskrcnn_tiny,
        maskformer_resnet50,
        maskformer_resnet101,
        maskformer_swin_tiny,
        maskformer_swin_small,
        maskformer_swin_base,
        maskformer_swin_large,
        segformer_b0,
        segformer_b1,
        segformer_b2,
        segformer_b3,
        segformer_b4,
        segformer_b5,
        segmenter_tiny_patch16,
        segmenter_small_patch16,
        segmenter_base_patch16,
        segmenter_large_patch16,
        segmenter_tiny_patch16_linear,
        segmenter_small_patch16_linear,
        segmenter_base_patch16_linear,
        segmenter_large_patch16_linear,
        vit_linear,
        detr_resnet50,
        detr_resnet101,
        detr_resnet50_panoptic,
        detr_tiny,
        eomt_tiny,
        eomt_small,
        eomt_base,
        eomt_large,
        eomt_dinov3_small,
        eomt_dinov3_base,
        eomt_dinov3_large,
    )
}


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The model of that name.

    Args:
      name: a key of `MODELS`.
      num_classes: of its logits.
      **options: attributes of its module, or what its constructor takes besides.

    Returns:
      The Flax module.

    Raises:
      ValueError: for an unknown name or option, with those that come near.

    Example:
      >>> create("unet_tiny", 5, norm="group").norm
      'group'
    """
    if name not in MODELS:
        raise ValueError(unknown_name("model", name, MODELS))
    model = MODELS[name](num_classes)
    accepted = (
        inspect.signature(type(model)).parameters | inspect.signature(MODELS[name]).parameters
    )
    fields = sorted(accepted.keys() - {"parent", "name", "num_classes", "options"})
    for option in options:
        if option not in fields:
            raise ValueError(unknown_name(f"option of {name}", option, fields))
    return MODELS[name](num_classes, **options)
