"""DETR: objects as a set, each from a learned query, without anchors or suppression."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax import ops
from segjax.models import layers
from segjax.models.backbones import resnet50, resnet101
from segjax.models.backbones.resnet import resnet18_of
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype, Layer
from segjax.models.outputs import QueryOutput, join_layers
from segjax.models.transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    Perceptron,
    dense_and_norm,
)
from segjax.numerics import accumulation_dtype
from segjax.typing import Array

_UNIFORM = nn.initializers.lecun_uniform()
# The masks of the queries after each layer of the decoder; None if the mask head predicts none.
Masks = tuple[Float[jax.Array, "*b q mh mw"] | None, ...]


class AttentionMaskHead(nn.Module):
    """Masks from each query's attention maps, upsampled in steps with features of the backbone.

    The attention maps of all heads are concatenated with the projected features. 3x3 convolutions
    with group norm and ReLU halve the channels step by step; between them the maps are upsampled
    by 2 and features of the backbone are added. Only the queries after the last layer have masks.

    Attributes:
      num_heads: Number of attention heads.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    num_heads: int = 8
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        states: Float[jax.Array, "layers *b q c"],
        memory: Float[jax.Array, "*b h w c"],
        projected: Float[jax.Array, "*b h w c"],
        features: dict[str, Float[jax.Array, "*b sh sw sc"]],
        where: Bool[jax.Array, "*b h w"] | None,
    ) -> Masks:
        dense, conv, norm = _head_layers(self)
        channels = memory.shape[-1]
        maps = self._attention(dense, states[-1], memory, where)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        joined = _JoinedConv(
            channels + maps.shape[-1], kernel_init=_UNIFORM, name="conv1", **dtypes
        )
        x = joined(projected, maps)
        x = nn.relu(norm(x, "norm1"))
        x = nn.relu(norm(conv(channels // 2, name="conv2")(x), "norm2"))
        for i, stage in enumerate(("stage3", "stage2", "stage1")):
            side = conv(x.shape[-1], 1, name=f"adapter{i + 1}")(features[stage])
            x = ops.resize(x, side.shape[-3:-1], method="nearest") + side[..., None, :, :, :]
            x = conv(channels // 2 ** (i + 2), name=f"conv{i + 3}")(x)
            x = nn.relu(norm(x, f"norm{i + 3}"))
        masks = layers.repeat_border(conv(1, name="output")(x))[..., 0]
        return (*[None] * (len(states) - 1), masks)

    def _attention(self, dense, queries, memory, where):
        """`[*b, q, h, w, heads]`: a softmax over pixels and heads together.

        As in the authors' code; in the paper each head has its own softmax.
        """
        channels = memory.shape[-1]

        def heads(x, name):
            x = dense(channels, name=name)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, channels // self.num_heads)

        query = heads(queries, "query") * (channels // self.num_heads) ** -0.5
        scores = jnp.einsum("...qnc,...hwnc->...qhwn", query, heads(memory, "key"))
        scores = scores.astype(accumulation_dtype(scores))
        if where is not None:
            lowest = jnp.finfo(scores.dtype).min
            scores = jnp.where(where[..., None, :, :, None], scores, lowest)
        weights = jax.nn.softmax(scores, (-3, -2, -1))
        return weights.astype(memory.dtype)


class _JoinedConv(layers.Conv):
    """A convolution of shared features, concatenated with those of each query.

    As it is linear, the part of the shared features is computed once.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self, shared: Float[jax.Array, "*b h w c"], own: Float[jax.Array, "*b q h w d"]
    ) -> Float[jax.Array, "*b q h w f"]:
        channels = shared.shape[-1], own.shape[-1]
        shape = (self.kernel_size, self.kernel_size, sum(channels), self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape[-1:], self.param_dtype)
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        shared_kernel, own_kernel = jnp.split(kernel, channels[:1], axis=2)
        y = layers.convolve(shared, shared_kernel, padding=1)[..., None, :, :, :]
        return y + layers.convolve(own, own_kernel, padding=1) + bias


class ProductMaskHead(nn.Module):
    """Masks as products: `⟨embedding of the query, features of the pixel⟩`.

    Masks have a quarter of the image's size. It is lighter than `AttentionMaskHead`, and the
    queries after every layer have masks.

    Attributes:
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        states: Float[jax.Array, "layers *b q c"],
        memory: Float[jax.Array, "*b h w c"],
        projected: Float[jax.Array, "*b h w c"],
        features: dict[str, Float[jax.Array, "*b sh sw sc"]],
        where: Bool[jax.Array, "*b h w"] | None,
    ) -> Masks:
        dense, conv, norm = _head_layers(self)
        channels = memory.shape[-1]
        x = memory
        for stage in ("stage2", "stage1"):
            side = conv(channels, 1, name=f"{stage}_adapter")(features[stage])
            x = layers.upsample(x, side.shape[-3:-1]) + side
            x = nn.relu(norm(conv(channels, name=f"{stage}_conv")(x), f"{stage}_norm"))
        x = layers.repeat_border(conv(channels, 1, name="pixels")(x))
        queries = Perceptron((channels,) * 3, dense, name="queries")(states)
        return tuple(jnp.einsum("...qc,...hwc->...qhw", queries, x))


def _head_layers(head: nn.Module) -> tuple[Layer, Layer, Callable[[jax.Array, str], jax.Array]]:
    """Constructors of dense layers, convolutions and group norms for a mask head."""
    dtypes: dict[str, Any] = {"dtype": head.dtype, "param_dtype": head.param_dtype}
    dense, _ = dense_and_norm(**dtypes)
    conv: Layer = functools.partial(layers.Conv, kernel_init=_UNIFORM, **dtypes)

    def norm(x, name):
        return layers.group_norm(x.shape[-1], epsilon=1e-5, name=name, **dtypes)(x)

    return dense, conv, norm


class Detr(ImageModel):
    """DETR: a backbone, a transformer over its last features, and heads on the queries.

    `apply(variables, images, train=False, where=None)` takes `[*b, h, w, c]` of any size and
    returns a `QueryOutput` with boxes, and with masks if there is a mask head. `auxiliary` holds
    the outputs after each layer of the decoder but the last. With `return_attention`, `attention`
    holds the self-attention of the encoder's layers, then the cross-attention of the decoder's.
    `where`, `[*b, h, w]`, is False for padding, to which nothing attends; boxes are fractions of
    the image without padding. Training needs a `dropout` key.

    Attributes:
      num_classes: Number of classes, without "no object".
      backbone: Constructor of `ResNet`.
      mask_head: Constructor of `AttentionMaskHead` or `ProductMaskHead`; None to predict only
        boxes.
      num_queries: Number of queries: the most objects that can be found.
      features: Channels of the transformer.
      hidden_features: Hidden channels of the transformer's MLPs.
      num_heads: Number of attention heads.
      encoder_layers: Number of encoder layers.
      decoder_layers: Number of decoder layers.
      dropout: Dropout rate of the transformer.
      frozen_norm: Whether the parameters and statistics of the backbone's batch norms are frozen.
      output_stride: Stride of the backbone's last stage: 8, 16 or 32.
      return_attention: Whether to return the attention maps.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module] = resnet50
    mask_head: Callable[..., nn.Module] | None = None
    num_queries: int = 100
    features: int = 256
    hidden_features: int = 2048
    num_heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    frozen_norm: bool = True
    output_stride: int = 32
    return_attention: bool = False

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "*b h w c"],
        train: bool = False,
        where: Bool[Array, "*b h w"] | None = None,
    ) -> QueryOutput:
        dense, norm = dense_and_norm(**self.dtypes)
        maps = self.backbone(
            output_stride=self.output_stride,
            frozen_norm=self.frozen_norm,
            name="backbone",
            **self.shared_options,
        )(images, train)
        projected = layers.Conv(self.features, 1, name="projection", **self.dtypes)(maps["stage4"])
        *lead, height, width, _ = projected.shape

        valid = jnp.ones((height, width), bool)
        if where is not None:
            valid = ops.resize(where[..., None], (height, width), method="nearest")[..., 0]
        positions = layers.flatten(layers.sine_positions(valid, self.features, dtype=self.dtype))
        keys = None if where is None else valid.reshape(*lead, height * width)

        def layer(kind: type[nn.Module]) -> Layer:
            return functools.partial(
                nn.remat(kind) if self.remat else kind,
                self.num_heads,
                self.hidden_features,
                dense,
                norm,
                train,
                self.dropout,
                self.return_attention,
            )

        encode = Encoder(self.encoder_layers, layer(EncoderLayer), name="encoder")
        decode = Decoder(self.decoder_layers, layer(DecoderLayer), norm, name="decoder")
        memory, attention = encode(layers.flatten(projected), positions, keys)
        shape = (self.num_queries, self.features)
        queries = self.param("queries", nn.initializers.normal(1.0), shape, self.param_dtype)
        states, cross_attention = decode(queries.astype(self.dtype), memory, positions, keys)

        wide = self.output_dtype
        logits = dense(self.num_classes + 1, name="class_head")(states).astype(wide)
        boxes = Perceptron((self.features, self.features, 4), dense, name="box_head")(states)
        boxes = nn.sigmoid(boxes.astype(wide))
        masks: Masks = (None,) * self.decoder_layers
        if self.mask_head is not None:
            head = self.mask_head(name="mask_head", **self.dtypes)
            memory = memory.reshape(projected.shape)
            masks = head(states, memory, projected, maps, None if where is None else valid)
            masks = tuple(None if mask is None else mask.astype(wide) for mask in masks)
        outputs = map(QueryOutput, logits, boxes, masks)
        return join_layers(outputs, (*attention, *cross_attention) if self.return_attention else ())


def detr_resnet50(num_classes: int, **options: Any) -> Detr:
    """DETR on a ResNet-50: 41.5 million parameters with 91 classes.

    Args:
      num_classes: Number of classes, without "no object"; 91 for COCO, whose ids go up to 90.
      **options: Attributes of `Detr`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.detr_resnet50(91)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.class_logits.shape, output.boxes.shape, len(output.auxiliary)
      ((1, 100, 92), (1, 100, 4), 5)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020.
    """
    return Detr(num_classes, resnet50, **options)


def detr_resnet101(num_classes: int, **options: Any) -> Detr:
    """DETR on a ResNet-101: 60.5 million parameters with 91 classes.

    Args and Returns as in `detr_resnet50`.
    """
    return Detr(num_classes, resnet101, **options)


def detr_resnet50_panoptic(num_classes: int, **options: Any) -> Detr:
    """DETR with masks, on a ResNet-50: 42.9 million parameters with 250 classes.

    Args and Returns as in `detr_resnet50`.
    """
    return Detr(num_classes, resnet50, AttentionMaskHead, **options)


def detr_tiny(num_classes: int, *, width: int = 64, **options: Any) -> Detr:
    """A small DETR with masks that trains on a CPU, on a ResNet-18 of output stride 16.

    Segjax's own configuration: 50 queries of 128 features, and three layers each of encoder and
    decoder.

    Args:
      num_classes: Number of classes.
      width: Channels of the backbone's first stage; 64 in ResNet-18.
      **options: Attributes of `Detr`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> models.detr_tiny(5, width=32).num_classes
      5
    """
    settings: dict[str, Any] = {
        "backbone": resnet18_of(width),
        "mask_head": ProductMaskHead,
        "num_queries": 50,
        "features": 128,
        "hidden_features": 512,
        "encoder_layers": 3,
        "decoder_layers": 3,
        "frozen_norm": False,
        "output_stride": 16,
    }
    return Detr(num_classes, **settings | options)
