"""Residual networks as in torchvision (v1.5), with dilation for dense prediction."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Layer
from segjax.ops.receptive import ConvSpec
from segjax.typing import Array


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    features: int
    stride: int
    dilation: int
    conv: Layer
    norm: Layer
    expansion = 1

    @nn.compact
    def __call__(self, x):
        y = self.conv(self.features, 3, self.stride, self.dilation, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.features, 3, dilation=self.dilation, name="conv2")(y)
        y = self.norm(name="norm2")(y)
        return nn.relu(y + shortcut(self, x, y.shape[-1]))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; the 3x3 convolution has the stride."""

    features: int
    stride: int
    dilation: int
    conv: Layer
    norm: Layer
    expansion = 4

    @nn.compact
    def __call__(self, x):
        y = nn.relu(self.norm(name="norm1")(self.conv(self.features, 1, name="conv1")(x)))
        y = self.conv(self.features, 3, self.stride, self.dilation, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(self.features * self.expansion, 1, name="conv3")(y)
        return nn.relu(self.norm(name="norm3")(y) + shortcut(self, x, y.shape[-1]))


def shortcut(block, x, features):
    """The input, projected by a 1x1 convolution if its shape differs from the output's."""
    if block.stride == 1 and x.shape[-1] == features:
        return x
    x = block.conv(features, 1, block.stride, name="shortcut_conv")(x)
    return block.norm(name="shortcut_norm")(x)


class ResNet(ImageModel):
    """A residual network without its classifier.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` and returns the features by name:
    `stem` (stride 2), `stage1` (4), `stage2` (8), `stage3` (16) and `stage4` (32). With a smaller
    `output_stride` the last stages have dilated convolutions instead of strides.

    Attributes:
      stage_sizes: Number of blocks in each stage.
      block: `BasicBlock` or `Bottleneck`.
      output_stride: Stride of the last stage: 8, 16 or 32.
      dilate_first: Whether the first block of a dilated stage has that stage's dilation, as in
        segmentation-models-pytorch, or the previous stage's, as in torchvision.
      width: Channels of the stem and of the first stage; each stage has twice those of the one
        before.
      frozen_norm: Whether the batch norms' parameters and statistics are frozen.
      epsilon: The batch norms' ε.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    stage_sizes: tuple[int, ...]
    block: type[nn.Module]
    output_stride: int = 32
    dilate_first: bool = False
    width: int = 64
    frozen_norm: bool = False
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, images: Float[Array, "*b h w c"], train: bool = False
    ) -> dict[str, Float[jax.Array, "*b sh sw sc"]]:
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {self.output_stride}")
        conv: Layer = functools.partial(layers.Conv, use_bias=False, **self.dtypes)
        norm = self.batch_norm(train, epsilon=self.epsilon)
        if self.frozen_norm:
            norm = functools.partial(layers.FrozenBatchNorm, epsilon=self.epsilon, **self.dtypes)
        block = nn.remat(self.block) if self.remat else self.block

        x = jnp.asarray(images, self.dtype)
        x = nn.relu(norm(name="stem_norm")(conv(self.width, 7, 2, name="stem_conv")(x)))
        features = {"stem": x}
        x = layers.max_pool(x, 3, 2, 1)
        for stage, blocks in enumerate(self.block_geometry()):
            for i, (stride, dilation) in enumerate(blocks):
                x = block(
                    self.width * 2**stage,
                    stride=stride,
                    dilation=dilation,
                    conv=conv,
                    norm=norm,
                    name=f"stage{stage + 1}_block{i}",
                )(x)
            features[f"stage{stage + 1}"] = x
        return features

    @nn.nowrap
    def block_geometry(self) -> list[list[tuple[int, int]]]:
        """Stride and dilation of each block, stage by stage."""
        stages = []
        reached, dilation = 4, 1
        for stage, size in enumerate(self.stage_sizes):
            stride = 1 if stage == 0 else 2
            previous = dilation
            if reached * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            reached *= stride
            first = (stride, dilation if self.dilate_first else previous)
            stages.append([first, *[(1, dilation)] * (size - 1)])
        return stages

    @nn.nowrap
    def stage_specs(self) -> list[list[ConvSpec]]:
        """The layers along one axis up to `stem`, and from each feature map to the next."""
        stages = [[ConvSpec(7, stride=2, padding=3)]]
        for blocks in self.block_geometry():
            specs = [] if len(stages) > 1 else [ConvSpec(3, stride=2, padding=1)]
            for stride, dilation in blocks:
                specs.append(ConvSpec(3, stride, dilation, dilation))
                if self.block is BasicBlock:
                    specs.append(ConvSpec(3, 1, dilation, dilation))
            stages.append(specs)
        return stages

    @nn.nowrap
    def layer_specs(self) -> list[ConvSpec]:
        """The layers along one axis up to `stage4`, for `segjax.ops.receptive_field`."""
        return list(itertools.chain(*self.stage_specs()))


def resnet18(**options: Any) -> ResNet:
    """ResNet-18 without its classifier: 11.2 million parameters.

    Args:
      **options: Attributes of `ResNet`.

    Returns:
      The module.

    Example:
      >>> from segjax.models import backbones
      >>> import jax
      >>> import jax.numpy as jnp
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> init = backbones.resnet18().init_with_output
      >>> features, _ = jax.eval_shape(init, jax.random.key(0), image)
      >>> features["stage4"].shape
      (1, 3, 2, 512)

    References:
      He et al., "Deep residual learning for image recognition", 2015, table 1.
    """
    return ResNet((2, 2, 2, 2), BasicBlock, **options)


@functools.cache
def resnet18_of(width: int) -> Callable[..., ResNet]:
    """The constructor of ResNet-18s of a width.

    It is cached, so that models with the same backbone are equal.
    """
    return functools.partial(resnet18, width=width)


def resnet34(**options: Any) -> ResNet:
    """ResNet-34 without its classifier: 21.3 million parameters.

    Args and Returns as in `resnet18`.
    """
    return ResNet((3, 4, 6, 3), BasicBlock, **options)


def resnet50(**options: Any) -> ResNet:
    """ResNet-50 without its classifier: 23.5 million parameters.

    Args and Returns as in `resnet18`.
    """
    return ResNet((3, 4, 6, 3), Bottleneck, **options)


def resnet101(**options: Any) -> ResNet:
    """ResNet-101 without its classifier: 42.5 million parameters.

    Args and Returns as in `resnet18`.
    """
    return ResNet((3, 4, 23, 3), Bottleneck, **options)
