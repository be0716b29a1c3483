"""MaskFormer: a set of masks with a class each, for semantic and panoptic segmentation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax import ops
from segjax.models import layers
from segjax.models.backbones import (
    resnet50,
    resnet101,
    swin_base,
    swin_large,
    swin_small,
    swin_tiny,
)
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype, Layer
from segjax.models.outputs import QueryOutput, join_layers
from segjax.models.transformer import Decoder, DecoderLayer, Perceptron, dense_and_norm
from segjax.typing import Array

_XAVIER = nn.initializers.xavier_uniform()


class FeaturePyramid(nn.Module):
    """Feature pyramid: features are upsampled, added to the next finer ones, and smoothed.

    Attributes:
      features: Output channels, a multiple of 32.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int = 256
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, scales: list[Float[jax.Array, "*b _ _ _"]]) -> Float[jax.Array, "*b h w c"]:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Layer = functools.partial(
            layers.Conv, self.features, kernel_init=_XAVIER, use_bias=False, **dtypes
        )
        norm: Layer = functools.partial(
            layers.group_norm, self.features, groups=32, epsilon=1e-5, **dtypes
        )
        *finer, x = scales
        x = nn.relu(norm(name="stem_norm")(conv(3, name="stem_conv")(x)))
        for i, side in enumerate(reversed(finer)):
            side = norm(name=f"side{i}_norm")(conv(1, name=f"side{i}_conv")(side))
            x = ops.resize(x, side.shape[-3:-1], method="nearest") + side
            x = nn.relu(norm(name=f"smooth{i}_norm")(conv(3, name=f"smooth{i}_conv")(x)))
        return layers.repeat_border(conv(3, use_bias=True, name="output")(x))


class MaskFormer(ImageModel):
    """MaskFormer: queries attend to the coarsest features; each predicts a class and a mask.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size and returns a
    `QueryOutput` with masks of a quarter of the images' size, rounded up: `⟨embedding of the query,
    embedding of the pixel⟩`. `auxiliary` holds the outputs of each layer of the decoder but the
    last. With `return_attention`, `attention` holds that of each layer to the coarsest features.
    Training needs a `dropout` key.

    Attributes:
      num_classes: Number of classes, without "no object".
      backbone: Constructor of a module with the features `stage1` to `stage4`.
      num_queries: Number of queries: the most masks that can be found.
      features: Channels of queries and pixel embeddings, a multiple of 32.
      hidden_features: Hidden channels of the decoder's MLPs.
      num_heads: Number of attention heads.
      decoder_layers: Number of decoder layers.
      dropout: Dropout rate of the decoder.
      return_attention: Whether to return the attention maps.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module]
    num_queries: int = 100
    features: int = 256
    hidden_features: int = 2048
    num_heads: int = 8
    decoder_layers: int = 6
    dropout: float = 0.1
    return_attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> QueryOutput:
        dense, norm = dense_and_norm(**self.dtypes)
        backbone = self.backbone(name="backbone", **self.shared_options)
        maps = backbone(images, train)
        scales = [maps[f"stage{i}"] for i in range(1, 5)]
        pixels = FeaturePyramid(self.features, name="pyramid", **self.dtypes)(scales)

        project = layers.Conv(
            self.features, 1, kernel_init=_XAVIER, name="projection", **self.dtypes
        )
        memory = project(maps["stage4"])
        layer: Layer = functools.partial(
            nn.remat(DecoderLayer) if self.remat else DecoderLayer,
            self.num_heads,
            self.hidden_features,
            dense,
            norm,
            train,
            self.dropout,
            self.return_attention,
        )
        shape = (self.num_queries, self.features)
        queries = self.param("queries", nn.initializers.normal(1.0), shape, self.param_dtype)
        states, attention = Decoder(self.decoder_layers, layer, norm, name="decoder")(
            queries.astype(self.dtype),
            layers.flatten(memory),
            layers.sine_tokens(memory, self.features, self.dtype),
            layers.picture_tokens(memory),
        )

        wide = self.output_dtype
        classes = dense(self.num_classes + 1, name="class_head")(states).astype(wide)
        embeddings = Perceptron((self.features,) * 3, dense, name="mask_head")(states)
        # A product for each layer, so that masks that are not used cost nothing under `jit`.
        outputs = (
            QueryOutput(
                logits, mask_logits=jnp.einsum("...qc,...hwc->...qhw", queries, pixels).astype(wide)
            )
            for logits, queries in zip(classes, embeddings, strict=True)
        )
        return join_layers(outputs, attention if self.return_attention else ())


def maskformer_resnet50(num_classes: int, **options: Any) -> MaskFormer:
    """MaskFormer on a ResNet-50: 41.3 million parameters with 150 classes.

    Args:
      num_classes: Number of classes, without "no object".
      **options: Attributes of `MaskFormer`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.maskformer_resnet50(150)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.class_logits.shape, output.mask_logits.shape, len(output.auxiliary)
      ((1, 100, 151), (1, 100, 17, 16), 5)

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic
      segmentation", 2021.
    """
    return MaskFormer(num_classes, **{"backbone": resnet50} | options)


def maskformer_resnet101(num_classes: int, **options: Any) -> MaskFormer:
    """MaskFormer on a ResNet-101: 60.3 million parameters with 150 classes.

    Args and Returns as in `maskformer_resnet50`.
    """
    return MaskFormer(num_classes, **{"backbone": resnet101} | options)


def maskformer_swin_tiny(num_classes: int, **options: Any) -> MaskFormer:
    """MaskFormer on a Swin-T: 41.8 million parameters with 150 classes.

    Args and Returns as in `maskformer_resnet50`.
    """
    return MaskFormer(num_classes, **{"backbone": swin_tiny} | options)


def maskformer_swin_small(num_classes: int, **options: Any) -> MaskFormer:
    """MaskFormer on a Swin-S: 63.1 million parameters with 150 classes.

    Args and Returns as in `maskformer_resnet50`.
    """
    return MaskFormer(num_classes, **{"backbone": swin_small} | options)


def maskformer_swin_base(num_classes: int, **options: Any) -> MaskFormer:
    """MaskFormer on a Swin-B: 101.8 million parameters with 150 classes.

    Args and Returns as in `maskformer_resnet50`.
    """
    return MaskFormer(num_classes, **{"backbone": swin_base} | options)


def maskformer_swin_large(num_classes: int, **options: Any) -> MaskFormer:
    """MaskFormer on a Swin-L: 211.6 million parameters with 150 classes.

    Args and Returns as in `maskformer_resnet50`.
    """
    return MaskFormer(num_classes, **{"backbone": swin_large} | options)
