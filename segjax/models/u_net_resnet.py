"""The U-Net whose encoder is a ResNet, as segmentation-models-pytorch builds it."""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax import ops
from segjax.models import layers
from segjax.models.backbones import resnet18, resnet34, resnet50
from segjax.models.image_model import ImageModel
from segjax.models.outputs import SemanticOutput
from segjax.ops.receptive import ConvSpec, Layer
from segjax.typing import Array


class DecoderBlock(nn.Module):
    """Twice: 3x3 convolution, batch norm, ReLU."""

    features: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w f"]:
        for i in (1, 2):
            x = self.conv(self.features, 3, use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(self.norm(name=f"norm{i}")(x))
        return x


class UNetResNet(ImageModel):
    """A U-Net whose encoder is a ResNet; the decoder upsamples to the nearest pixel.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size and returns a
    `SemanticOutput` with logits of that size.

    Attributes:
      num_classes: Number of classes.
      backbone: Constructor of a module with the features `stem` and `stage1` to `stage4`.
      widths: Channels of the decoder's levels, from the coarsest to that of the image.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module]
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> SemanticOutput:
        conv: Callable = functools.partial(layers.Conv, **self.dtypes)
        norm = self.batch_norm(train)
        backbone = self.backbone(name="backbone", **self.shared_options)
        features = backbone(images, train)
        block = nn.remat(DecoderBlock) if self.remat else DecoderBlock

        x = features["stage4"]
        for i, skip in enumerate(("stage3", "stage2", "stage1", "stem", None)):
            target = images if skip is None else features[skip]
            rows, columns = target.shape[-3:-1]
            x = ops.resize(x, (rows, columns), method="nearest")
            if skip is not None:
                x = jnp.concatenate([x, target], axis=-1)
            x = block(self.widths[i], conv, norm, name=f"decoder{i}")(x)
        logits = conv(self.num_classes, 3, name="logits")(x)
        return SemanticOutput(logits.astype(self.output_dtype))

    @nn.nowrap
    def layer_specs(self) -> list[Layer]:
        """The layers along one axis, with the skips as branches, for `segjax.ops.receptive_field`.

        The ResNet's own shortcuts are left out: they do not enlarge the receptive field.
        """
        conv = ConvSpec(3, padding=1)
        up = ConvSpec(1, stride=Fraction(1, 2))
        specs: list[Layer] = []
        for stage in reversed(self.backbone().stage_specs()):
            deeper = [*stage, *specs, up]
            specs = [([], deeper), conv, conv]
        return [*deeper, conv, conv, conv]


def unet_resnet18(num_classes: int, **options: Any) -> UNetResNet:
    """U-Net on a ResNet-18: 14.3 million parameters.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `UNetResNet`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.unet_resnet18(3)
      >>> image = jax.ShapeDtypeStruct((1, 65, 50, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape
      (1, 65, 50, 3)

    References:
      Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015, with the encoder and the decoder of
      Iakubovskii, "Segmentation Models PyTorch", 2019.
    """
    return UNetResNet(num_classes, resnet18, **options)


def unet_resnet34(num_classes: int, **options: Any) -> UNetResNet:
    """U-Net on a ResNet-34: 24.4 million parameters.

    Args and Returns as in `unet_resnet18`.
    """
    return UNetResNet(num_classes, resnet34, **options)


def unet_resnet50(num_classes: int, **options: Any) -> UNetResNet:
    """U-Net on a ResNet-50: 32.5 million parameters.

    Args and Returns as in `unet_resnet18`.
    """
    return UNetResNet(num_classes, resnet50, **options)
