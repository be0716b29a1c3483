"""Fully convolutional networks on a dilated backbone, as torchvision builds them."""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.backbones import resnet50, resnet101
from segjax.models.image_model import ImageModel
from segjax.models.outputs import SemanticOutput
from segjax.ops.receptive import ConvSpec
from segjax.typing import Array


class FCNHead(nn.Module):
    """The head of FCN: a 3x3 convolution, dropout, and a 1x1 convolution to classes.

    Attributes:
      num_classes: Number of classes.
      conv: Constructor of convolutions.
      norm: Constructor of batch norms.
      train: Whether dropout is active.
    """

    num_classes: int
    conv: Callable
    norm: Callable
    train: bool

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w classes"]:
        x = self.conv(x.shape[-1] // 4, 3, use_bias=False, name="conv")(x)
        x = nn.relu(self.norm(name="norm")(x))
        x = nn.Dropout(0.1, deterministic=not self.train)(x)
        return self.conv(self.num_classes, 1, name="logits")(x)


class DenseClassifier(ImageModel):
    """A backbone, a head on its last features, and an auxiliary `FCNHead` on earlier ones.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` and returns a `SemanticOutput`
    with logits of the images' size, interpolated bilinearly. Training needs a `dropout` key.

    Attributes:
      num_classes: Number of classes.
      backbone: Constructor of a module with the features `stage1` to `stage4`.
      head: Constructor of the head, with the same fields as `FCNHead`.
      auxiliary: Whether there is an auxiliary head.
      auxiliary_stage: Name of the features that the auxiliary head takes.
      output_stride: Stride of the backbone's last stage: 8, 16 or 32.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module]
    head: Callable[..., nn.Module] = FCNHead
    auxiliary: bool = True
    auxiliary_stage: str = "stage3"
    output_stride: int = 8

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> SemanticOutput:
        conv = functools.partial(layers.Conv, **self.dtypes)
        norm = self.batch_norm(train)
        backbone = self.backbone(
            output_stride=self.output_stride, name="backbone", **self.shared_options
        )
        features = backbone(images, train)

        def classify(head, stage, name):
            logits = head(self.num_classes, conv=conv, norm=norm, train=train, name=name)(
                features[stage]
            )
            logits = logits.astype(self.output_dtype)
            return layers.upsample(logits, (images.shape[-3], images.shape[-2]))

        logits = classify(self.head, "stage4", "head")
        if not self.auxiliary:
            return SemanticOutput(logits)
        return SemanticOutput(logits, (classify(FCNHead, self.auxiliary_stage, "auxiliary_head"),))

    @nn.nowrap
    def layer_specs(self) -> list[ConvSpec]:
        """The layers along one axis, for `segjax.ops.receptive_field`.

        Raises:
          ValueError: If the head pools over the whole image.
        """
        if self.head is not FCNHead:
            raise ValueError(
                f"head: expected FCNHead, got {self.head.__name__}: with it every output depends "
                "on the whole image"
            )
        half, pixel = Fraction(1, 2), Fraction(1, self.output_stride)
        upsampling = ConvSpec(2, stride=pixel, padding=half - pixel / 2)
        backbone = self.backbone(output_stride=self.output_stride, parent=None)
        return [*backbone.layer_specs(), ConvSpec(3, padding=1), upsampling]


def fcn_resnet50(num_classes: int, **options: Any) -> DenseClassifier:
    """FCN on a ResNet-50 of output stride 8: 35.3 million parameters with 21 classes.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `DenseClassifier`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.fcn_resnet50(21)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape
      (1, 65, 64, 21)

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, on the
      dilated backbone of torchvision.
    """
    return DenseClassifier(num_classes, resnet50, **options)


def fcn_resnet101(num_classes: int, **options: Any) -> DenseClassifier:
    """FCN on a ResNet-101 of output stride 8: 54.3 million parameters with 21 classes.

    Args and Returns as in `fcn_resnet50`.
    """
    return DenseClassifier(num_classes, resnet101, **options)
