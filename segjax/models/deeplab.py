"""DeepLab: atrous spatial pyramid pooling on a dilated backbone."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models.backbones import resnet50, resnet101
from segjax.models.fcn import DenseClassifier


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel views of several sizes, joined by a 1x1 convolution.

    A 1x1 convolution, a dilated 3x3 convolution for each rate, and the mean over the picture.

    Attributes:
      rates: dilations of the 3x3 convolutions.
      features: of each branch, and of the result.
      conv: constructor of convolutions, with the options that a model's layers share.
      norm: likewise, of batch norms.
      train: whether dropout drops.
    """

    rates: tuple[int, ...]
    conv: Callable
    norm: Callable
    train: bool
    features: int = 256

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w f"]:
        def branch(x, name, kernel_size=1, dilation=1):
            conv = functools.partial(self.conv, use_bias=False, name=f"{name}_conv")
            x = conv(self.features, kernel_size, dilation=dilation)(x)
            return nn.relu(self.norm(name=f"{name}_norm")(x))

        views = [branch(x, "branch0")]
        views += [branch(x, f"branch{i}", 3, rate) for i, rate in enumerate(self.rates, 1)]
        pooled = branch(jnp.mean(x, (-3, -2), keepdims=True), "pooling")
        views.append(jnp.broadcast_to(pooled, views[0].shape))
        x = branch(jnp.concatenate(views, axis=-1), "project")
        return nn.Dropout(0.5, deterministic=not self.train)(x)


class DeepLabHead(nn.Module):
    """ASPP, a 3x3 convolution, and a 1x1 convolution to classes.

    Attributes:
      num_classes: of the logits.
      conv: constructor of convolutions, with the options that a model's layers share.
      norm: likewise, of batch norms.
      train: whether dropout drops.
      rates: dilations of ASPP, in the features' pixels.
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


def deeplabv3_resnet50(num_classes: int, **options) -> DenseClassifier:
    """DeepLabV3 on a ResNet-50 of output stride 8: 42.0 million parameters with 21 classes.

    Args:
      num_classes: of the logits.
      **options: attributes of `DenseClassifier`.

    Returns:
      The module.

    Example:
      >>> model = deeplabv3_resnet50(21)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape
      (1, 65, 64, 21)

    Source: Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017.
    """
    return DenseClassifier(num_classes, resnet50, DeepLabHead, **options)


def deeplabv3_resnet101(num_classes: int, **options) -> DenseClassifier:
    """DeepLabV3 on a ResNet-101 of output stride 8: 61.0 million parameters with 21 classes.

    Args and Returns as of `deeplabv3_resnet50`.
    """
    return DenseClassifier(num_classes, resnet101, DeepLabHead, **options)
