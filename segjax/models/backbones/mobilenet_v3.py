"""MobileNetV3 as torchvision builds it, dilated for dense prediction."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Layer
from segjax.typing import Array


class BlockSpec(NamedTuple):
    """A block: a row of the paper's tables.

    Attributes:
      kernel: Kernel size of the depthwise convolution.
      expanded: Channels of the expanded features.
      features: Output channels.
      squeeze: Whether the block has a squeeze-and-excitation layer.
      nonlinearity: Name of the activation function in `flax.linen`.
      stride: Stride of the depthwise convolution.
    """

    kernel: int
    expanded: int
    features: int
    squeeze: bool
    nonlinearity: str
    stride: int


LARGE = (
    BlockSpec(3, 16, 16, False, "relu", 1),
    BlockSpec(3, 64, 24, False, "relu", 2),
    BlockSpec(3, 72, 24, False, "relu", 1),
    BlockSpec(5, 72, 40, True, "relu", 2),
    BlockSpec(5, 120, 40, True, "relu", 1),
    BlockSpec(5, 120, 40, True, "relu", 1),
    BlockSpec(3, 240, 80, False, "hard_swish", 2),
    BlockSpec(3, 200, 80, False, "hard_swish", 1),
    BlockSpec(3, 184, 80, False, "hard_swish", 1),
    BlockSpec(3, 184, 80, False, "hard_swish", 1),
    BlockSpec(3, 480, 112, True, "hard_swish", 1),
    BlockSpec(3, 672, 112, True, "hard_swish", 1),
    BlockSpec(5, 672, 160, True, "hard_swish", 2),
    BlockSpec(5, 960, 160, True, "hard_swish", 1),
    BlockSpec(5, 960, 160, True, "hard_swish", 1),
)
SMALL = (
    BlockSpec(3, 16, 16, True, "relu", 2),
    BlockSpec(3, 72, 24, False, "relu", 2),
    BlockSpec(3, 88, 24, False, "relu", 1),
    BlockSpec(5, 96, 40, True, "hard_swish", 2),
    BlockSpec(5, 240, 40, True, "hard_swish", 1),
    BlockSpec(5, 240, 40, True, "hard_swish", 1),
    BlockSpec(5, 120, 48, True, "hard_swish", 1),
    BlockSpec(5, 144, 48, True, "hard_swish", 1),
    BlockSpec(5, 288, 96, True, "hard_swish", 2),
    BlockSpec(5, 576, 96, True, "hard_swish", 1),
    BlockSpec(5, 576, 96, True, "hard_swish", 1),
)
STEM_FEATURES = 16


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: scales each channel by a factor that an MLP predicts from the means.

    Attributes:
      conv: Constructor of convolutions.
    """

    conv: Layer

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w c"]:
        channels = x.shape[-1]
        means = layers.global_mean(x)
        y = nn.relu(self.conv(_round_to_8(channels // 4), 1, name="reduce")(means))
        return x * nn.hard_sigmoid(self.conv(channels, 1, name="expand")(y))


class InvertedResidual(nn.Module):
    """Inverted residual: 1x1 convolution to more channels, depthwise convolution, 1x1 convolution.

    Attributes:
      spec: The block's row in the paper's table.
      stride: Stride of the depthwise convolution; smaller than in `spec` if it is dilated instead.
      dilation: Dilation of the depthwise convolution.
      conv: Constructor of convolutions.
      norm: Constructor of batch norms.
    """

    spec: BlockSpec
    stride: int
    dilation: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b new_h new_w f"]:
        spec, inputs = self.spec, x
        activate = getattr(nn, spec.nonlinearity)
        conv = functools.partial(self.conv, use_bias=False)
        if spec.expanded != x.shape[-1]:
            x = conv(spec.expanded, 1, name="expand_conv")(x)
            x = activate(self.norm(name="expand_norm")(x))
        options = {"groups": spec.expanded, "name": "depthwise_conv"}
        x = conv(spec.expanded, spec.kernel, self.stride, self.dilation, **options)(x)
        x = activate(self.norm(name="depthwise_norm")(x))
        if spec.squeeze:
            x = SqueezeExcitation(self.conv, name="squeeze")(x)
        x = self.norm(name="project_norm")(conv(spec.features, 1, name="project_conv")(x))
        return x + inputs if spec.stride == 1 and x.shape == inputs.shape else x


class MobileNetV3(ImageModel):
    """A MobileNetV3 without its classifier.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` and returns the features by name,
    as torchvision's segmentation and detection models take them: `stem` (stride 2), `stage1` (4),
    `stage2` (8) and `stage3` (16), each after the first block of that stride, and `stage4` (32)
    after the last convolution. With a smaller `output_stride` the last stages have dilated
    convolutions instead of strides.

    Attributes:
      blocks: The blocks, in order.
      output_stride: Stride of the last stage: 8, 16 or 32.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    blocks: tuple[BlockSpec, ...]
    output_stride: int = 32

    @nn.compact
    def __call__(
        self, images: Float[Array, "*b h w c"], train: bool = False
    ) -> dict[str, Float[jax.Array, "*b sh sw sc"]]:
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {self.output_stride}")
        conv: Layer = functools.partial(layers.Conv, **self.dtypes)
        norm = self.batch_norm(train, momentum=0.01, epsilon=1e-3)
        block = nn.remat(InvertedResidual) if self.remat else InvertedResidual

        def wrap(x, name, *geometry):
            x = conv(*geometry, use_bias=False, name=f"{name}_conv")(x)
            return nn.hard_swish(norm(name=f"{name}_norm")(x))

        x = wrap(jnp.asarray(images, self.dtype), "stem", STEM_FEATURES, 3, 2)
        features = {"stem": x}
        reached, dilation = 2, 1
        for i, spec in enumerate(self.blocks):
            stride = spec.stride
            if reached * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            reached *= stride
            x = block(spec, stride, dilation, conv, norm, name=f"block{i}")(x)
            if spec.stride > 1:
                features[f"stage{len(features)}"] = x
        features["stage4"] = wrap(x, "last", 6 * x.shape[-1], 1)
        return features


def mobilenet_v3_large(**options: Any) -> MobileNetV3:
    """MobileNetV3-Large without its classifier: 3.0 million parameters.

    Args:
      **options: Attributes of `MobileNetV3`.

    Returns:
      The module.

    Example:
      >>> from segjax.models import backbones
      >>> import jax
      >>> import jax.numpy as jnp
      >>> images = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> init = backbones.mobilenet_v3_large(output_stride=16).init_with_output
      >>> features, variables = jax.eval_shape(init, jax.random.key(0), images)
      >>> features["stage4"].shape
      (1, 5, 4, 960)

    References:
      Howard et al., "Searching for MobileNetV3", 2019, table 1.
    """
    return MobileNetV3(LARGE, **options)


def mobilenet_v3_small(**options: Any) -> MobileNetV3:
    """MobileNetV3-Small without its classifier: 0.9 million parameters.

    Args and Returns as in `mobilenet_v3_large`. References: the same, table 2.
    """
    return MobileNetV3(SMALL, **options)


def _round_to_8(channels: int) -> int:
    """The nearest multiple of 8 that is not more than a tenth smaller."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
