"""Segmenter: a vision transformer, and a decoder that classifies its patches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax import ops
from segjax.models import layers
from segjax.models.backbones.vit import (
    VisionTransformer,
    dinov2_small,
    token_layers,
    vit_base_patch16,
    vit_large_patch16,
    vit_small_patch16,
    vit_tiny_patch16,
)
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype
from segjax.models.outputs import SemanticOutput
from segjax.typing import Array


class LinearDecoder(nn.Module):
    """Classifies each patch by a dense layer.

    Attributes:
      num_classes: Number of classes.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
      train: Whether dropout is active.
      return_attention: Not used: this decoder has no attention.
      param_dtype: Not used: this decoder has only a dense layer.
    """

    num_classes: int
    dense: Callable
    norm: Callable
    train: bool
    return_attention: bool
    param_dtype: Dtype

    @nn.compact
    def __call__(
        self, patches: Float[jax.Array, "*b h w c"]
    ) -> tuple[Float[jax.Array, "*b h w classes"], tuple]:
        return self.dense(self.num_classes, name="head")(patches), ()


class MaskTransformer(nn.Module):
    """Transformer blocks on patches and class tokens; masks are their cosine similarities.

    `logits = norm(cos(P patch, Q class))` for all pairs, after `depth` blocks of self-attention
    among patches and class tokens.

    Attributes:
      num_classes: Number of classes.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
      train: Whether dropout is active.
      return_attention: Whether to return the attention maps `[*b, heads, n, n]`; the n tokens are
        the patches and then the classes.
      param_dtype: Dtype of the class tokens.
      depth: Number of blocks, whose attention heads have 64 channels each.
      dropout: Dropout rate of the blocks.
    """

    num_classes: int
    dense: Callable
    norm: Callable
    train: bool
    return_attention: bool
    param_dtype: Dtype
    depth: int = 2
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, patches: Float[jax.Array, "*b h w c"]
    ) -> tuple[Float[jax.Array, "*b h w classes"], tuple]:
        if self.num_classes < 2:  # layer norm over a single class would be constant
            raise ValueError(f"num_classes: expected at least 2, got {self.num_classes}")
        *lead, rows, columns, features = patches.shape
        number = rows * columns
        x = self.dense(features, name="input")(patches.reshape(*lead, number, features))
        shape, init = (1, self.num_classes, features), nn.initializers.normal(0.02)
        classes = self.param("class_embedding", init, shape, self.param_dtype)
        classes = jnp.broadcast_to(classes[0].astype(x.dtype), (*lead, *shape[1:]))
        x = jnp.concatenate([x, classes], axis=-2)
        attention = []
        for i in range(self.depth):
            x, weights = layers.TransformerBlock(
                max(features // 64, 1),
                self.dense,
                self.norm,
                self.train,
                dropout=self.dropout,
                return_attention=self.return_attention,
                name=f"block{i}",
            )(x)
            attention.append(weights)
        x = self.norm(name="norm")(x)

        init = nn.initializers.normal(features**-0.5)
        project = functools.partial(self.dense, features, use_bias=False, kernel_init=init)
        cosines = jnp.vectorize(ops.cosine_similarity, signature="(n,d),(k,d)->(n,k)")(
            project(name="patch_projection")(x[..., :number, :]),
            project(name="class_projection")(x[..., number:, :]),
        )
        logits = self.norm(name="mask_norm")(cosines.astype(x.dtype))
        logits = logits.reshape(*lead, rows, columns, self.num_classes)
        return logits, tuple(attention) if self.return_attention else ()


class Segmenter(ImageModel):
    """Segmenter: a vision transformer, and a decoder that classifies its patches.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size and returns a
    `SemanticOutput` with logits of that size, interpolated bilinearly. With `return_attention`,
    `attention` holds that of each block: first the encoder's, then the decoder's. Training needs a
    `dropout` key.

    Attributes:
      num_classes: Number of classes.
      backbone: Constructor of `VisionTransformer`.
      decoder: Constructor of the decoder, with the same fields as `LinearDecoder`.
      epsilon: ε of the decoder's layer norms.
      drop_path: Stochastic depth of the backbone: the probability of dropping a branch of the last
        block in training.
      return_attention: Whether to return the attention maps.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., VisionTransformer]
    decoder: Callable[..., nn.Module] = MaskTransformer
    epsilon: float = 1e-5
    drop_path: float = 0.1
    return_attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> SemanticOutput:
        encoder = self.backbone(
            drop_path=self.drop_path,
            return_attention=self.return_attention,
            name="encoder",
            **self.shared_options,
        )
        features = encoder(images, train)
        dense, norm = token_layers(self.epsilon, **self.dtypes)
        decoder = self.decoder(
            self.num_classes,
            dense,
            norm,
            train,
            self.return_attention,
            self.param_dtype,
            name="decoder",
        )
        logits, attention = decoder(features["patches"])

        logits = logits.astype(self.output_dtype)
        rows, columns = (encoder.patch_size * size for size in logits.shape[-3:-1])
        height, width = images.shape[-3:-1]
        logits = ops.resize(logits, (rows, columns))[..., :height, :width, :]
        return SemanticOutput(logits, attention=(*features.get("attention", ()), *attention))


# The original's encoders include the classifier that they were pretrained with.
_ORIGINAL: dict[str, Any] = {
    "image_size": 512,
    "num_classes": 1000,
    "epsilon": 1e-5,
    "resize": ops.resize,
}
_TINY = functools.partial(vit_tiny_patch16, **_ORIGINAL)
_SMALL = functools.partial(vit_small_patch16, **_ORIGINAL)
_BASE = functools.partial(vit_base_patch16, **_ORIGINAL)
_LARGE = functools.partial(vit_large_patch16, **_ORIGINAL | {"image_size": 640})


def segmenter_tiny_patch16(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with mask transformer on a ViT-Ti/16: 6.9 million parameters with 150 classes.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `Segmenter`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.segmenter_tiny_patch16(21, return_attention=True)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape, len(output.attention), output.attention[-1].shape
      ((1, 65, 64, 21), 14, (1, 3, 41, 41))

    References:
      Strudel et al., "Segmenter: transformer for semantic segmentation", 2021.
    """
    return Segmenter(num_classes, _TINY, **options)


def segmenter_small_patch16(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with mask transformer on a ViT-S/16: 26.4 million parameters with 150 classes.

    Args and Returns as in `segmenter_tiny_patch16`.
    """
    return Segmenter(num_classes, _SMALL, **options)


def segmenter_base_patch16(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with mask transformer on a ViT-B/16: 103.3 million parameters with 150 classes.

    Args and Returns as in `segmenter_tiny_patch16`.
    """
    return Segmenter(num_classes, _BASE, **options)


def segmenter_large_patch16(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with mask transformer on a ViT-L/16: 334.3 million parameters with 150 classes.

    Args and Returns as in `segmenter_tiny_patch16`.
    """
    return Segmenter(num_classes, _LARGE, **options)


def segmenter_tiny_patch16_linear(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with linear decoder on a ViT-Ti/16: 5.9 million parameters with 150 classes.

    Args and Returns as in `segmenter_tiny_patch16`.
    """
    return Segmenter(num_classes, _TINY, LinearDecoder, **options)


def segmenter_small_patch16_linear(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with linear decoder on a ViT-S/16: 22.4 million parameters with 150 classes.

    Args and Returns as in `segmenter_tiny_patch16`.
    """
    return Segmenter(num_classes, _SMALL, LinearDecoder, **options)


def segmenter_base_patch16_linear(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with linear decoder on a ViT-B/16: 87.3 million parameters with 150 classes.

    Args and Returns as in `segmenter_tiny_patch16`.
    """
    return Segmenter(num_classes, _BASE, LinearDecoder, **options)


def segmenter_large_patch16_linear(num_classes: int, **options: Any) -> Segmenter:
    """Segmenter with linear decoder on a ViT-L/16: 305.9 million parameters with 150 classes.

    Args and Returns as in `segmenter_tiny_patch16`.
    """
    return Segmenter(num_classes, _LARGE, LinearDecoder, **options)


def vit_linear(num_classes: int, **options: Any) -> Segmenter:
    """A linear classifier on the patches of a vision transformer, by default DINOv2's ViT-S/14.

    Args and Returns as in `segmenter_tiny_patch16`.

    Example:
      >>> from segjax.models import backbones
      >>> from segjax import models
      >>> models.vit_linear(21, backbone=backbones.vit_base_patch16).num_classes
      21
    """
    settings: dict[str, Any] = {"backbone": dinov2_small, "decoder": LinearDecoder}
    return Segmenter(num_classes, **settings | options)
