"""Backbones: images to features at several scales, by name."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.models.backbones.mit import (
        MixTransformer,
        mit_b0,
        mit_b1,
        mit_b2,
        mit_b3,
        mit_b4,
        mit_b5,
    )
    from segjax.models.backbones.mobilenet_v3 import (
        MobileNetV3,
        mobilenet_v3_large,
        mobilenet_v3_small,
    )
    from segjax.models.backbones.resnet import (
        BasicBlock,
        Bottleneck,
        ResNet,
        resnet18,
        resnet34,
        resnet50,
        resnet101,
    )
    from segjax.models.backbones.swin import (
        SwinTransformer,
        swin_base,
        swin_large,
        swin_small,
        swin_tiny,
    )
    from segjax.models.backbones.vit import (
        VisionTransformer,
        dinov2_base,
        dinov2_large,
        dinov2_small,
        vit_base_patch16,
        vit_large_patch16,
        vit_small_patch16,
        vit_tiny_patch16,
    )
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
