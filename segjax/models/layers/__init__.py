"""Layers that the models share, with torch's conventions."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.models.layers.attention import (
        Layer,
        LayerScale,
        MultiHeadAttention,
        SelfAttention,
        TransformerBlock,
        attend,
        attention_weights,
        exact_gelu,
        quick_gelu,
    )
    from segjax.models.layers.canvas import (
        Extent,
        global_mean,
        inside,
        picture_pixels,
        picture_tokens,
        repeat_border,
        upsample,
    )
    from segjax.models.layers.convolution import convolve
    from segjax.models.layers.forms import project
    from segjax.models.layers.linear import Conv, Dense, Dtype, UpConv2x
    from segjax.models.layers.normalization import (
        BatchNorm,
        FrozenBatchNorm,
        GroupNorm,
        NormKind,
        group_norm,
        norm,
    )
    from segjax.models.layers.positions import (
        flatten,
        rotary_angles,
        rotate,
        sine_positions,
        sine_tokens,
    )
    from segjax.models.layers.resampling import (
        depth_to_space,
        max_pool,
        max_pool_2x,
        pad_to_multiple,
        space_to_depth,
        upsample_linear_2x,
    )
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
