"""Lite R-ASPP: the segmentation head of MobileNetV3."""

import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.backbones import mobilenet_v3_large
from segjax.models.image_model import ImageModel
from segjax.models.layers import Layer
from segjax.models.outputs import SemanticOutput
from segjax.typing import Array


class LRASPP(ImageModel):
    """Lite R-ASPP: gated deep features and shallow features, each with a linear classifier.

    With `d` the features of `stage4`, `s` those of `stage2`, `U` the upsampling to their size and
    matrices `A`, `G`, `S` and `D`, the logits are `s S + U(relu(norm(d A)) · sigmoid(mean(d) G)) D`
    (`S` and `D` with a bias). `apply(variables, images, train=False)` takes `[*b, h, w, c]` and
    returns a `SemanticOutput` with logits of the images' size, interpolated bilinearly.

    Attributes:
      num_classes: Number of classes.
      backbone: Constructor of a module with the features `stage2` and `stage4`.
      features: Channels to which the deep features are projected.
      output_stride: Stride of the backbone's last stage: 8, 16 or 32.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module]
    features: int = 128
    output_stride: int = 16

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> SemanticOutput:
        conv: Layer = functools.partial(layers.Conv, kernel_size=1, **self.dtypes)
        backbone = self.backbone(
            output_stride=self.output_stride, name="backbone", **self.shared_options
        )
        features = backbone(images, train)
        shallow, deep = features["stage2"], features["stage4"]

        gate = layers.global_mean(deep)
        gate = nn.sigmoid(conv(self.features, use_bias=False, name="gate")(gate))
        x = conv(self.features, use_bias=False, name="conv")(deep)
        x = nn.relu(self.batch_norm(train)(name="norm")(x)) * gate
        x = layers.upsample(x, shallow.shape[-3:-1])
        logits = conv(self.num_classes, name="shallow_logits")(shallow)
        logits += conv(self.num_classes, name="deep_logits")(x)
        logits = logits.astype(self.output_dtype)
        height, width = images.shape[-3:-1]
        return SemanticOutput(layers.upsample(logits, (height, width)))


def lraspp_mobilenet_v3_large(num_classes: int, **options: Any) -> LRASPP:
    """LR-ASPP on a MobileNetV3-Large of output stride 16: 3.2 million parameters with 21 classes.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `LRASPP`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.lraspp_mobilenet_v3_large(21)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape
      (1, 65, 64, 21)

    References:
      Howard et al., "Searching for MobileNetV3", 2019, section 6.4; as torchvision builds it.
    """
    return LRASPP(num_classes, mobilenet_v3_large, **options)
