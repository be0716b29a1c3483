"""Flax modules, by functions named after the published models."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.models import backbones, layers
    from segjax.models.canvas import blind_beyond, is_canvas_invariant
    from segjax.models.clip import (
        Clip,
        ClipOutput,
        clip_resnet50,
        clip_resnet101,
        clip_vit_base_patch16,
        clip_vit_base_patch32,
        clip_vit_large_patch14,
        clip_vit_large_patch14_336,
        siglip2_base_patch16,
        siglip_base_patch16,
    )
    from segjax.models.clipseg import ClipSeg, clipseg_rd16, clipseg_rd64, clipseg_rd64_refined
    from segjax.models.deeplab import (
        DeepLabV3Plus,
        deeplabv3_mobilenet_v3_large,
        deeplabv3_resnet50,
        deeplabv3_resnet101,
        deeplabv3plus_resnet34,
        deeplabv3plus_resnet50,
        deeplabv3plus_resnet101,
    )
    from segjax.models.detr import (
        AttentionMaskHead,
        Detr,
        ProductMaskHead,
        detr_resnet50,
        detr_resnet50_panoptic,
        detr_resnet101,
        detr_tiny,
    )
    from segjax.models.eomt import (
        EoMT,
        annealed_mask_probs,
        eomt_base,
        eomt_dinov3_base,
        eomt_dinov3_large,
        eomt_dinov3_small,
        eomt_large,
        eomt_small,
        eomt_tiny,
    )
    from segjax.models.fcn import DenseClassifier, fcn_resnet50, fcn_resnet101
    from segjax.models.image_model import ImageModel
    from segjax.models.lraspp import LRASPP, lraspp_mobilenet_v3_large
    from segjax.models.mask2former import (
        Mask2Former,
        mask2former_resnet50,
        mask2former_swin_base,
        mask2former_swin_large,
        mask2former_swin_small,
        mask2former_swin_tiny,
        mask2former_tiny,
    )
    from segjax.models.mask_rcnn import (
        MaskRCNN,
        maskrcnn_resnet50_fpn,
        maskrcnn_resnet50_fpn_v2,
        maskrcnn_tiny,
    )
    from segjax.models.maskformer import (
        MaskFormer,
        maskformer_resnet50,
        maskformer_resnet101,
        maskformer_swin_base,
        maskformer_swin_large,
        maskformer_swin_small,
        maskformer_swin_tiny,
    )
    from segjax.models.outputs import DetectionOutput, QueryOutput, SampledOutput, SemanticOutput
    from segjax.models.registry import MODELS, create
    from segjax.models.segformer import (
        SegFormer,
        segformer_b0,
        segformer_b1,
        segformer_b2,
        segformer_b3,
        segformer_b4,
        segformer_b5,
    )
    from segjax.models.segmenter import (
        LinearDecoder,
        MaskTransformer,
        Segmenter,
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
    from segjax.models.training_free import DenseClipOutput, dense_clip
    from segjax.models.u_net import UNet, unet, unet_patch2, unet_small, unet_tiny
    from segjax.models.u_net_resnet import UNetResNet, unet_resnet18, unet_resnet34, unet_resnet50
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
