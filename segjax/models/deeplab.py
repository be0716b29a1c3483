"""DeepLab: atrous spatial pyramid pooling on a dilated backbone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.backbones import mobilenet_v3_large, resnet34, resnet50, resnet101
from segjax.models.fcn import DenseClassifier
from segjax.models.image_model import ImageModel
from segjax.models.layers import Layer
from segjax.models.outputs import SemanticOutput
from segjax.typing import Array

# Dilated as in segmentation-models-pytorch.
_resnet34 = functools.partial(resnet34, dilate_first=True)
_resnet50 = functools.partial(resnet50, dilate_first=True)
_resnet101 = functools.partial(resnet101, dilate_first=True)


class SeparableConv(nn.Module):
    """A depthwise separable convolution: a depthwise 3x3 and a 1x1 convolution.

    Attributes:
      features: Output channels.
      conv: Constructor of convolutions.
      dilation: Dilation of the depthwise convolution.
    """

    features: int
    conv: Callable
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w f"]:
        conv = functools.partial(self.conv, use_bias=False)
        channels = x.shape[-1]
        options = {"dilation": self.dilation, "groups": channels, "name": "depthwise"}
        return conv(self.features, 1, name="pointwise")(conv(channels, 3, **options)(x))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel branches of several dilations, joined by a 1x1 conv.

    The branches are a 1x1 convolution, a dilated 3x3 convolution for each rate, and the mean over
    the image, each with batch norm and ReLU.

    Attributes:
      rates: Dilations of the 3x3 convolutions.
      conv: Constructor of convolutions.
      norm: Constructor of batch norms.
      train: Whether dropout is active.
      features: Channels of each branch, and output channels.
      separable: Whether the 3x3 convolutions are `SeparableConv`s.
    """

    rates: tuple[int, ...]
    conv: Callable
    norm: Callable
    train: bool
    features: int = 256
    separable: bool = False

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w f"]:
        pointwise = functools.partial(self.conv, kernel_size=1, use_bias=False)
        dilated = functools.partial(self.conv, kernel_size=3, use_bias=False)
        if self.separable:
            dilated = functools.partial(SeparableConv, conv=self.conv)

        def branch(x, name, conv=pointwise, **options):
            x = conv(self.features, name=f"{name}_conv", **options)(x)
            return nn.relu(self.norm(name=f"{name}_norm")(x))

        views = [branch(x, "branch0")]
        for i, rate in enumerate(self.rates, 1):
            views.append(branch(x, f"branch{i}", dilated, dilation=rate))
        pooled = branch(layers.global_mean(x), "pooling")
        views.append(jnp.broadcast_to(pooled, views[0].shape))
        x = branch(jnp.concatenate(views, axis=-1), "project")
        return nn.Dropout(0.5, deterministic=not self.train)(x)


class DeepLabHead(nn.Module):
    """The head of DeepLabV3: ASPP, a 3x3 convolution, and a 1x1 convolution to classes.

    Attributes:
      num_classes: Number of classes.
      conv: Constructor of convolutions.
      norm: Constructor of batch norms.
      train: Whether dropout is active.
      rates: Dilations of the ASPP's convolutions, in pixels of the features.
    """

    num_classes: int
    conv: Callable
    norm: Callable
    train: bool
    rates: tuple[int, ...] = (12, 24, 36)

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w classes"]:
        x = ASPP(self.rates, self.conv, self.norm, self.train, name="aspp")(x)
        x = self.conv(256, 3, use_bias=False, name="conv")(x)
        x = nn.relu(self.norm(name="norm")(x))
        return self.conv(self.num_classes, 1, name="logits")(x)


class DeepLabV3Plus(ImageModel):
    """DeepLabV3+: separable ASPP, and a decoder that adds detail from features of stride 4.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size and returns a
    `SemanticOutput` with logits of that size. Upsampling is bilinear with aligned corners, as in
    segmentation-models-pytorch. Training needs a `dropout` key.

    Attributes:
      num_classes: Number of classes.
      backbone: Constructor of a module with the features `stage1` and `stage4`.
      features: Channels of the decoder.
      shallow_features: Channels to which the features of stride 4 are projected.
      rates: Dilations of the ASPP's convolutions, in pixels of the features.
      output_stride: Stride of the backbone's last stage: 8, 16 or 32.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module]
    features: int = 256
    shallow_features: int = 48
    rates: tuple[int, ...] = (12, 24, 36)
    output_stride: int = 16

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> SemanticOutput:
        conv: Layer = functools.partial(layers.Conv, **self.dtypes)
        norm = self.batch_norm(train)
        backbone = self.backbone(
            output_stride=self.output_stride, name="backbone", **self.shared_options
        )
        features = backbone(images, train)
        shallow, deep = features["stage1"], features["stage4"]

        def separable(x, name):
            x = SeparableConv(self.features, conv, name=f"{name}_conv")(x)
            return nn.relu(norm(name=f"{name}_norm")(x))

        x = ASPP(self.rates, conv, norm, train, self.features, separable=True, name="aspp")(deep)
        x = separable(x, "deep")
        x = layers.upsample(x, shallow.shape[-3:-1], align_corners=True)
        shallow = conv(self.shallow_features, 1, use_bias=False, name="shallow_conv")(shallow)
        shallow = nn.relu(norm(name="shallow_norm")(shallow))
        x = separable(jnp.concatenate([x, shallow], axis=-1), "fusion")
        logits = conv(self.num_classes, 1, name="logits")(x)
        logits = logits.astype(self.output_dtype)
        height, width = images.shape[-3:-1]
        return SemanticOutput(layers.upsample(logits, (height, width), align_corners=True))


def deeplabv3_resnet50(num_classes: int, **options: Any) -> DenseClassifier:
    """DeepLabV3 on a ResNet-50 of output stride 8: 42.0 million parameters with 21 classes.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `DenseClassifier`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.deeplabv3_resnet50(21)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape
      (1, 65, 64, 21)

    References:
      Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017.
    """
    return DenseClassifier(num_classes, resnet50, DeepLabHead, **options)


def deeplabv3_resnet101(num_classes: int, **options: Any) -> DenseClassifier:
    """DeepLabV3 on a ResNet-101 of output stride 8: 61.0 million parameters with 21 classes.

    Args and Returns as in `deeplabv3_resnet50`.
    """
    return DenseClassifier(num_classes, resnet101, DeepLabHead, **options)


def deeplabv3_mobilenet_v3_large(num_classes: int, **options: Any) -> DenseClassifier:
    """DeepLabV3 on MobileNetV3-Large of output stride 16: 11.0 million parameters with 21 classes.

    Args and Returns as in `deeplabv3_resnet50`.
    """
    defaults: dict[str, Any] = {"output_stride": 16, "auxiliary_stage": "stage2"}
    return DenseClassifier(num_classes, mobilenet_v3_large, DeepLabHead, **defaults | options)


def deeplabv3plus_resnet34(num_classes: int, **options: Any) -> DeepLabV3Plus:
    """DeepLabV3+ on a ResNet-34 of output stride 16: 22.4 million parameters.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `DeepLabV3Plus`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.deeplabv3plus_resnet34(21)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape
      (1, 65, 64, 21)

    References:
      Chen et al., "Encoder-decoder with atrous separable convolution for semantic image
      segmentation", 2018; as segmentation-models-pytorch builds it.
    """
    return DeepLabV3Plus(num_classes, _resnet34, **options)


def deeplabv3plus_resnet50(num_classes: int, **options: Any) -> DeepLabV3Plus:
    """DeepLabV3+ on a ResNet-50 of output stride 16: 26.7 million parameters.

    Args and Returns as in `deeplabv3plus_resnet34`.
    """
    return DeepLabV3Plus(num_classes, _resnet50, **options)


def deeplabv3plus_resnet101(num_classes: int, **options: Any) -> DeepLabV3Plus:
    """DeepLabV3+ on a ResNet-101 of output stride 16: 45.7 million parameters.

    Args and Returns as in `deeplabv3plus_resnet34`.
    """
    return DeepLabV3Plus(num_classes, _resnet101, **options)
