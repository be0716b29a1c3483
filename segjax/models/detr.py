"""DETR: objects as a set, each from a learned query; no anchors and no suppression."""

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
# A mask head's result for the queries after each layer of the decoder: None where it gives none.
Masks = tuple[Float[jax.Array, "*b q mh mw"] | None, ...]


class AttentionMaskHead(nn.Module):
    """Masks out of the places that each query attends to, refined query by query.

    The maps of all heads join the projected features. 3x3 convolutions, each with group norm and
    ReLU, then halve the channels again and again, and from stage to stage the backbone's features
    of twice the size are added. Only the queries after the last layer have masks.

    Attributes:
      num_heads: of the attention.
      dtype: of the computation.
      param_dtype: of the parameters.
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
        """`[*b, q, h, w, heads]`: of each query, over the places and the heads together.

        So it is in the authors' code; the paper speaks of a map for each head.
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
    """A convolution of features that all queries share, joined with those of each.

    As it is linear, the share of the former is computed once.
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
        for_shared, for_own = jnp.split(kernel, channels[:1], axis=2)
        y = layers.convolve(shared, for_shared, padding=1)[..., None, :, :, :]
        return y + layers.convolve(own, for_own, padding=1) + bias


class ProductMaskHead(nn.Module):
    """Masks as products: `⟨embedding of the query, features of the pixel⟩`.

    They have a quarter of the image's size; it is lighter than `AttentionMaskHead`, and the queries
    after every layer have masks.

    Attributes:
      dtype: of the computation.
      param_dtype: of the parameters.
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
    """Constructors of matrix products and convolutions, and group norm by name, of a mask head."""
    dtypes: dict[str, Any] = {"dtype": head.dtype, "param_dtype": head.param_dtype}
    dense, _ = dense_and_norm(**dtypes)
    conv: Layer = functools.partial(layers.Conv, kernel_init=_UNIFORM, **dtypes)

    def norm(x, name):
        return layers.group_norm(x.shape[-1], epsilon=1e-5, name=name, **dtypes)(x)

    return dense, conv, norm


class Detr(ImageModel):
    """A backbone, a transformer over its last features, and heads on what the queries become.

    `apply(variables, images, train=False, where=None)` takes `[*b, h, w, c]` of any size and
    returns a `QueryOutput` with boxes, and with masks where there is a mask head; that of each
    layer of the decoder but the last is in `auxiliary`. On request `attention` has that of the
    encoder's layers, and then of the decoder's, to the last features. `where`, `[*b, h, w]`, is
    False where a canvas is only filled up: nothing looks there, and boxes are fractions of what
    remains. Training takes a `dropout` key.

    Attributes:
      num_classes: of the logits, "no object" apart.
      backbone: constructor of a `ResNet`.
      mask_head: constructor of `AttentionMaskHead` or `ProductMaskHead`; None for boxes alone.
      num_queries: how many objects it can find.
      features: of each query.
      hidden_features: of the perceptrons in the transformer.
      num_heads: of the attention.
      encoder_layers: their number.
      decoder_layers: their number.
      dropout: within the transformer.
      frozen_norm: whether the backbone's batch norms keep what they were loaded with.
      output_stride: of the backbone, 8, 16 or 32.
      return_attention: whether to return the attention maps.
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

        seen = jnp.ones((height, width), bool)
        if where is not None:
            seen = ops.resize(where[..., None], (height, width), method="nearest")[..., 0]
        positions = layers.flatten(layers.sine_positions(seen, self.features, dtype=self.dtype))
        keys = None if where is None else seen.reshape(*lead, height * width)

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
        states, looks = decode(queries.astype(self.dtype), memory, positions, keys)

        wide = self.output_dtype
        logits = dense(self.num_classes + 1, name="class_head")(states).astype(wide)
        boxes = Perceptron((self.features, self.features, 4), dense, name="box_head")(states)
        boxes = nn.sigmoid(boxes.astype(wide))
        masks: Masks = (None,) * self.decoder_layers
        if self.mask_head is not None:
            head = self.mask_head(name="mask_head", **self.dtypes)
            memory = memory.reshape(projected.shape)
            masks = head(states, memory, projected, maps, None if where is None else seen)
            masks = tuple(None if mask is None else mask.astype(wide) for mask in masks)
        outputs = map(QueryOutput, logits, boxes, masks)
        return join_layers(outputs, (*attention, *looks) if self.return_attention else ())


def detr_resnet50(num_classes: int, **options: Any) -> Detr:
    """DETR on a ResNet-50: 41.5 million parameters with 91 classes.

    Args:
      num_classes: of the logits, "no object" apart; COCO's identifiers run to 90.
      **options: attributes of `Detr`.

    Returns:
      The module.

    Example:
      >>> model = detr_resnet50(91)
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

    Args and Returns as of `detr_resnet50`.
    """
    return Detr(num_classes, resnet101, **options)


def detr_resnet50_panoptic(num_classes: int, **options: Any) -> Detr:
    """DETR with masks, on a ResNet-50: 42.9 million parameters with 250 classes.

    Args and Returns as of `detr_resnet50`.
    """
    return Detr(num_classes, resnet50, AttentionMaskHead, **options)


def detr_tiny(num_classes: int, *, width: int = 64, **options: Any) -> Detr:
    """A small DETR with masks that trains on a CPU, on a ResNet-18 of output stride 16.

    It is segjax's own: 50 queries of 128 features, and three layers each of encoder and decoder.

    Args:
      num_classes: of the objects.
      width: channels of the backbone's first stage; 64 are ResNet-18's.
      **options: attributes of `Detr`.

    Returns:
      The module.

    Example:
      >>> detr_tiny(5, width=32).num_classes
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
