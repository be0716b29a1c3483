"""Mask2Former: queries that attend only to the pixels of the mask they predicted last."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax import ops
from segjax.models import layers
from segjax.models.backbones import (
    resnet50,
    swin_base,
    swin_large,
    swin_small,
    swin_tiny,
)
from segjax.models.backbones.resnet import resnet18_of
from segjax.models.image_model import ImageModel
from segjax.models.layers import Layer
from segjax.models.outputs import QueryOutput, join_layers
from segjax.models.pixel_decoder import PixelDecoder
from segjax.models.transformer import Perceptron, dense_and_norm
from segjax.typing import Array


class MaskedDecoderLayer(nn.Module):
    """Masked cross-attention to pixels, self-attention among queries, and an MLP.

    Each has a shortcut, and a layer norm after the sum. Returns the queries and their attention to
    the pixels `[*b, heads, q, n]`, or None.

    Attributes:
      num_heads: Number of attention heads.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
      return_attention: Whether to return the attention maps.
    """

    num_heads: int
    dense: Layer
    norm: Layer
    return_attention: bool

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "*b q c"],
        query_positions: Float[jax.Array, "q c"],
        pixels: Float[jax.Array, "*b n c"],
        pixel_positions: Float[jax.Array, "*p n c"],
        where: Bool[jax.Array, "*b q n"],
    ) -> tuple[Float[jax.Array, "*b q c"], Float[jax.Array, "*b heads q n"] | None]:
        def attend(name, keys, values, where=None):
            # Without dropout, training makes no difference.
            options = (self.num_heads, self.dense, False, 0.0, self.return_attention)
            attention = layers.MultiHeadAttention(*options, name=name)
            return attention(x + query_positions, keys, values, where)

        y, attention = attend(
            "cross_attention", pixels + pixel_positions, pixels, where[..., None, :, :]
        )
        x = self.norm(name="norm1")(x + y)
        y, _ = attend("self_attention", x + query_positions, x)
        x = self.norm(name="norm2")(x + y)
        y = nn.relu(self.dense(8 * x.shape[-1], name="fc1")(x))
        return self.norm(name="norm3")(x + self.dense(x.shape[-1], name="fc2")(y)), attention


class Mask2Former(ImageModel):
    """Mask2Former: a backbone, a pixel decoder, and a decoder with masked attention.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size and returns a
    `QueryOutput` with masks of a quarter of the images' size, rounded up: `⟨embedding of the query,
    features of the pixel⟩`. `auxiliary` holds the outputs of the learned queries and of each layer
    of the decoder but the last. Each layer attends to one scale, with strides 32, 16, 8, 32 … in
    turn: each query to the pixels of its mask before the layer, or to all pixels if that is empty.
    With `return_attention`, `attention` holds that of each layer. Training with a backbone that has
    stochastic depth needs a `dropout` key.

    Attributes:
      num_classes: Number of classes, without "no object".
      backbone: Constructor of a module with the features `stage1` to `stage4`.
      num_queries: Number of queries: the most segments that can be found.
      features: Channels of pixels and queries, a multiple of 32.
      num_heads: Number of attention heads in all layers.
      encoder_layers: Number of deformable attention layers in the pixel decoder.
      decoder_layers: Number of masked attention layers in the decoder.
      return_attention: Whether to return the attention maps.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module]
    num_queries: int = 100
    features: int = 256
    num_heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 9
    return_attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> QueryOutput:
        backbone = self.backbone(name="backbone", **self.shared_options)
        pixel_decoder = PixelDecoder(
            self.features,
            self.encoder_layers,
            self.num_heads,
            remat=self.remat,
            name="pixel_decoder",
            **self.dtypes,
        )
        pixels, scales = pixel_decoder(backbone(images, train))
        states, masks, attention = self._decode(pixels, scales)

        wide = self.output_dtype
        logits = layers.Dense(self.num_classes + 1, name="class_head", **self.dtypes)(
            jnp.stack(states)
        ).astype(wide)
        outputs = (
            QueryOutput(classes, mask_logits=mask.astype(wide))
            for classes, mask in zip(logits, masks, strict=True)
        )
        return join_layers(outputs, attention)

    def _decode(
        self, pixels: jax.Array, scales: list[Any]
    ) -> tuple[list[jax.Array], list[jax.Array], tuple[jax.Array, ...]]:
        """The normed queries and their masks before and after each layer, and the attention."""
        dense, norm = dense_and_norm(**self.dtypes)

        def embedding(name, number):
            start, shape = nn.initializers.normal(1.0), (number, self.features)
            return self.param(name, start, shape, self.param_dtype).astype(self.dtype)

        query_positions = embedding("query_positions", self.num_queries)
        queries = embedding("queries", self.num_queries)
        scale_embedding = embedding("scale_embedding", len(scales))
        memory = [
            layers.flatten(x) + level for x, level in zip(scales, scale_embedding, strict=True)
        ]
        positions = [layers.sine_tokens(x, self.features, self.dtype) for x in scales]
        valid_tokens = [layers.picture_tokens(x) for x in scales]
        # Resizing commutes with the product, so that it is done once for all queries and layers.
        coarse = [layers.flatten(ops.resize(pixels, x.shape[-3:-1])) for x in scales]

        normed = norm(name="norm")
        mask_head = Perceptron((self.features,) * 3, dense, name="mask_head")
        layer = nn.remat(MaskedDecoderLayer) if self.remat else MaskedDecoderLayer
        x = jnp.broadcast_to(queries, (*pixels.shape[:-3], *queries.shape))
        states = [normed(x)]
        embeddings = [mask_head(states[0])]
        maps: list[Any] = []
        for i in range(self.decoder_layers):
            scale = i % len(scales)
            # A logit of at least 0 is a probability of at least one half.
            where = valid_tokens[scale]
            valid = True if where is None else where[..., None, :]
            inside = jnp.einsum("...qc,...nc->...qn", embeddings[-1], coarse[scale]) >= 0
            inside &= valid
            inside |= valid & ~jnp.any(inside, axis=-1, keepdims=True)
            x, weights = layer(
                self.num_heads, dense, norm, self.return_attention, name=f"layer{i}"
            )(x, query_positions, memory[scale], positions[scale], inside)
            states.append(normed(x))
            embeddings.append(mask_head(states[-1]))
            maps.append(weights)
        masks = [jnp.einsum("...qc,...hwc->...qhw", y, pixels) for y in embeddings]
        return states, masks, tuple(maps) if self.return_attention else ()


# As in the published model.
_RESNET50 = functools.partial(resnet50, frozen_norm=True)


def mask2former_resnet50(num_classes: int, **options: Any) -> Mask2Former:
    """Mask2Former on a ResNet-50: 44.0 million parameters with 133 classes.

    The backbone's batch norms are frozen; `backbone=resnet50` trains them.

    Args:
      num_classes: Number of classes, without "no object".
      **options: Attributes of `Mask2Former`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.mask2former_resnet50(133)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.class_logits.shape, output.mask_logits.shape, len(output.auxiliary)
      ((1, 100, 134), (1, 100, 17, 16), 9)

    References:
      Cheng et al., "Masked-attention mask transformer for universal image segmentation",
      2022.
    """
    return Mask2Former(num_classes, **{"backbone": _RESNET50} | options)


def mask2former_swin_tiny(num_classes: int, **options: Any) -> Mask2Former:
    """Mask2Former on a Swin-T: 47.4 million parameters with 133 classes.

    Args and Returns as in `mask2former_resnet50`.
    """
    return Mask2Former(num_classes, **{"backbone": swin_tiny} | options)


def mask2former_swin_small(num_classes: int, **options: Any) -> Mask2Former:
    """Mask2Former on a Swin-S: 68.8 million parameters with 133 classes.

    Args and Returns as in `mask2former_resnet50`.
    """
    return Mask2Former(num_classes, **{"backbone": swin_small} | options)


def mask2former_swin_base(num_classes: int, **options: Any) -> Mask2Former:
    """Mask2Former on a Swin-B: 106.9 million parameters with 133 classes.

    Args and Returns as in `mask2former_resnet50`.
    """
    return Mask2Former(num_classes, **{"backbone": swin_base} | options)


def mask2former_swin_large(num_classes: int, **options: Any) -> Mask2Former:
    """Mask2Former with 200 queries on a Swin-L: 215.5 million parameters with 133 classes.

    Args and Returns as in `mask2former_resnet50`.
    """
    settings: dict[str, Any] = {"backbone": swin_large, "num_queries": 200}
    return Mask2Former(num_classes, **settings | options)


def mask2former_tiny(num_classes: int, *, width: int = 64, **options: Any) -> Mask2Former:
    """A small Mask2Former that trains on a CPU, on a ResNet-18.

    Segjax's own configuration: 50 queries of 96 features, one layer in the pixel decoder and three
    in the decoder.

    Args:
      num_classes: Number of classes.
      width: Channels of the backbone's first stage; 64 in ResNet-18.
      **options: Attributes of `Mask2Former`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> models.mask2former_tiny(5, width=32).num_classes
      5
    """
    settings: dict[str, Any] = {
        "backbone": resnet18_of(width),
        "num_queries": 50,
        "features": 96,
        "num_heads": 4,
        "encoder_layers": 1,
        "decoder_layers": 3,
    }
    return Mask2Former(num_classes, **settings | options)
