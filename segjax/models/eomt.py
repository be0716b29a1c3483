"""EoMT: a plain vision transformer whose last blocks take learned queries beside the patches."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Integer, Num

from segjax import ops
from segjax.models import layers
from segjax.models.backbones.vit import resize_bicubic, token_layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype, Layer
from segjax.models.outputs import QueryOutput, join_layers
from segjax.models.transformer import Perceptron
from segjax.typing import Array

Grid = tuple[int, int]
_gelu = functools.partial(nn.gelu, approximate=False)


class UpscaleLayer(nn.Module):
    """Doubles the resolution: transposed convolution, GELU, depthwise convolution, layer norm.

    Attributes:
      norm: Constructor of layer norms.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    norm: Layer
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b 2*h 2*w c"]:
        features = x.shape[-1]
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = _gelu(layers.UpConv2x(features, name="up_conv", **dtypes)(x))
        conv = layers.Conv(features, groups=features, use_bias=False, name="conv", **dtypes)
        return self.norm(epsilon=1e-6, name="norm")(conv(x))


class QueryHeads(nn.Module):
    """The class of each query, and its mask: `⟨mlp(query), upscaled patch⟩`.

    Takes tokens, of which the first are queries and the last are patches, and the (rows, columns)
    of the patches. Returns logits of classes `[*b, q, classes + 1]` and masks `[*b, q, mh, mw]`.

    Attributes:
      num_classes: Number of classes, without "no object".
      num_queries: Number of queries, q.
      upscales: How many times the resolution of the patches is doubled.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
      dtype: Dtype of the computation; the logits are at least float32.
      param_dtype: Dtype of the parameters.
    """

    num_classes: int
    num_queries: int
    upscales: int
    dense: Layer
    norm: Layer
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(
        self, tokens: Float[jax.Array, "*b n c"], grid: Grid
    ) -> tuple[Float[jax.Array, "*b q classes"], Float[jax.Array, "*b q mh mw"]]:
        *lead, _, features = tokens.shape
        tokens = self.norm(name="norm")(tokens)
        queries = tokens[..., : self.num_queries, :]
        patches = tokens[..., -math.prod(grid) :, :].reshape(*lead, *grid, features)

        classes = self.dense(self.num_classes + 1, name="class_head")(queries)
        x = Perceptron((features,) * 3, self.dense, _gelu, name="mask_head")(queries)
        for i in range(self.upscales):
            upscale = UpscaleLayer(self.norm, self.dtype, self.param_dtype, name=f"upscale{i}")
            patches = upscale(patches)
        masks = jnp.einsum("...qc,...hwc->...qhw", x, patches)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return classes.astype(wide), masks.astype(wide)


class EoMT(ImageModel):
    """EoMT: a vision transformer that predicts masks without a decoder.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size and returns a
    `QueryOutput` with masks of a quarter of the images' size, rounded up. The last blocks have
    queries beside the other tokens; the output is predicted from them after the last block. In
    training `auxiliary` holds the predictions before each of these blocks. Training needs a
    `dropout` key.

    In these blocks attention may be masked: a query then attends to the patches of its predicted
    mask, and to all other tokens. In training a query of block i is masked with the probability
    `mask_probs[i]`, a variable of the collection "annealing"; in inference all are if that is above
    ½. It is 1 at first; `annealed_mask_probs` lowers it to 0 in training, where the model is a
    plain transformer, and as fast.

    Attributes:
      num_classes: Number of classes, without "no object".
      features: Channels of each token.
      depth: Number of blocks.
      num_heads: Number of attention heads in each block.
      num_queries: Number of queries.
      query_blocks: Number of blocks with queries, the last ones.
      patch_size: Side of the patches in pixels, a power of 2.
      image_size: Side, in pixels, of the square images for which the position embeddings are made;
        for other sizes they are interpolated.
      rotary: Whether patches have rotary position embeddings, as in DINOv3, instead of learned
        ones; the keys then have no bias.
      rescale: Augmentation of the rotary positions in training: their coordinates are multiplied by
        a random factor from 1/rescale to rescale.
      registers: Number of register tokens.
      epsilon: ε of the layer norms.
      drop_path: Stochastic depth: the probability of dropping a branch of the last block in
        training; it grows linearly from 0 at the first block.
      return_attention: Whether to return the attention maps `[*b, heads, n, n]`; the n tokens are
        the queries, if the block has them, the class token, the registers and the patches.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    features: int
    depth: int
    num_heads: int
    num_queries: int = 200
    query_blocks: int = 4
    patch_size: int = 16
    image_size: int = 640
    rotary: bool = False
    rescale: float = 2.0
    registers: int = 4
    epsilon: float = 1e-6
    drop_path: float = 0.0
    return_attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> QueryOutput:
        dense, norm = token_layers(self.epsilon, **self.dtypes)
        upscales = max(0, int(math.log2(self.patch_size)) - 2)
        heads = QueryHeads(
            self.num_classes, self.num_queries, upscales, dense, norm, name="heads", **self.dtypes
        )
        block = nn.remat(layers.TransformerBlock) if self.remat else layers.TransformerBlock
        scale = functools.partial(layers.LayerScale, 1.0, param_dtype=self.param_dtype)
        mask_probs = self.variable("annealing", "mask_probs", jnp.ones, self.query_blocks).value

        x, grid = self._embed(jnp.asarray(images, self.dtype))
        angles = self._angles(grid, train) if self.rotary else None
        first = self.depth - self.query_blocks  # the first block with queries
        predictions: list[Any] = []
        attention: list[Any] = []
        for i in range(self.depth):
            where = None
            if i == first:
                x = jnp.concatenate([self._tokens("queries", self.num_queries, x), x], axis=-2)
            if i >= first and train:
                predictions.append(heads(x, grid))
                where = self._draw_masks(predictions[-1][1], grid, mask_probs[i - first])
            elif i >= first and not self.is_initializing():
                where = self._masks(heads, x, grid, mask_probs[i - first])
            if where is not None:
                where = _extend_mask(where, x.shape[-2])
            x, weights = block(
                self.num_heads,
                dense,
                norm,
                train,
                drop_path=self.drop_path * i / max(self.depth - 1, 1),
                scale=scale,
                return_attention=self.return_attention,
                key_bias=not self.rotary,
                name=f"block{i}",
            )(x, where, angles)
            attention.append(weights)
        predictions.append(heads(x, grid))

        stride = self.patch_size // 2**upscales
        rows, columns = (-(-size // stride) for size in images.shape[-3:-1])
        outputs = (
            QueryOutput(classes, mask_logits=masks[..., :rows, :columns])
            for classes, masks in predictions
        )
        return join_layers(outputs, tuple(attention) if self.return_attention else ())

    def _embed(self, images: jax.Array) -> tuple[jax.Array, Grid]:
        """Class token, registers and patches, and the patches' (rows, columns)."""
        conv = layers.Conv(
            self.features,
            self.patch_size,
            self.patch_size,
            padding=0,
            **self.dtypes,
            name="patch_embedding",
        )
        x = conv(layers.pad_to_multiple(images, self.patch_size, 2, mode="constant"))
        *lead, rows, columns, features = x.shape
        if not self.rotary:
            side = self.image_size // self.patch_size
            start = nn.initializers.normal(0.02)
            places = self.param("position_embedding", start, (side**2, features), self.param_dtype)
            places = resize_places(places, (rows, columns)).reshape(rows, columns, features)
            x = x + places.astype(x.dtype)
        x = x.reshape(*lead, rows * columns, features)
        own = [self._tokens("class_token", 1, x)]
        if self.registers:
            own.append(self._tokens("register_tokens", self.registers, x))
        return jnp.concatenate([*own, x], axis=-2), (rows, columns)

    def _angles(self, grid: Grid, train: bool) -> jax.Array:
        """The rotary angles of the patches."""
        scale: Any = 1.0
        if train and self.rescale != 1:
            drawn = jax.random.uniform(self.make_rng("dropout"), minval=-1.0, maxval=1.0)
            scale = self.rescale**drawn
        features = self.features // self.num_heads
        return layers.rotary_angles(grid, features, scale=scale, dtype=self.dtype)

    def _tokens(self, name: str, number: int, x: jax.Array) -> jax.Array:
        """Learned tokens, the same for each image."""
        shape = number, self.features
        tokens = self.param(name, nn.initializers.normal(0.02), shape, self.param_dtype)
        return jnp.broadcast_to(tokens.astype(x.dtype), (*x.shape[:-2], *shape))

    def _draw_masks(self, masks: jax.Array, grid: Grid, prob: jax.Array) -> jax.Array:
        """The attention mask in training: queries are masked with probability `prob`."""
        drawn = jax.random.uniform(self.make_rng("dropout"), (*masks.shape[:-2], 1))
        return _inside(masks, grid) | (drawn >= prob)

    def _masks(self, heads: QueryHeads, x: jax.Array, grid: Grid, prob: jax.Array) -> jax.Array:
        """The attention mask in inference; masks are predicted only if `prob` is above ½."""
        everywhere = (*x.shape[:-2], self.num_queries, math.prod(grid))
        return nn.cond(
            prob > 0.5,
            lambda heads, x: _inside(heads(x, grid)[1], grid),
            lambda heads, x: jnp.ones(everywhere, bool),
            heads,
            x,
        )


def _inside(masks: jax.Array, grid: Grid) -> Bool[jax.Array, "*b q patches"]:
    """The patches at which a mask's logit is above 0."""
    coarse = ops.resize(jnp.moveaxis(masks, -3, -1), grid)
    coarse = coarse.reshape(*coarse.shape[:-3], -1, coarse.shape[-1])
    return jnp.swapaxes(coarse, -2, -1) > 0


def _extend_mask(where: jax.Array, number: int) -> Bool[jax.Array, "*b 1 n n"]:
    """The attention mask of all tokens from that of queries and patches; True elsewhere."""
    queries, patches = where.shape[-2:]
    margins = [(0, 0)] * (where.ndim - 2) + [(0, number - queries), (number - patches, 0)]
    return jnp.pad(where, margins, constant_values=True)[..., None, :, :]


def resize_places(embedding: Float[Array, "n c"], grid: Grid) -> Float[jax.Array, "m c"]:
    """Position embeddings of a square grid of patches, interpolated to another grid."""
    side = math.isqrt(len(embedding))
    if grid == (side, side):
        return jnp.asarray(embedding)
    resized = resize_bicubic(jnp.asarray(embedding).reshape(side, side, -1), grid)
    return resized.reshape(-1, embedding.shape[1])


def annealed_mask_probs(
    step: Integer[Array, ""],
    starts: Num[Array, "blocks"],
    ends: Num[Array, "blocks"],
    *,
    power: float = 0.9,
) -> Float32[jax.Array, "blocks"]:
    """Mask annealing of EoMT: the probability that a block's attention is masked, at a step.

    `(1 − (step − start)/(end − start))^power`: 1 before the start, and 0 from the end. In the
    authors' configurations the blocks are annealed in order: with training divided into `b + 2`
    equal parts, block i of b is annealed in part i + 1 (both counted from 0).

    Args:
      step: Scalar, the training step.
      starts: `[blocks]`, the step at which the annealing of each block starts.
      ends: `[blocks]`, the step at which it ends; greater than `starts`.
      power: Exponent of the decay.

    Returns:
      float32 `[blocks]`, the variable `mask_probs` of an `EoMT`.

    Raises:
      ValueError: If `starts` and `ends` differ in shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> probs = models.annealed_mask_probs(
      ...     jnp.array(15), jnp.array([0, 10, 20]), jnp.array([10, 20, 30]), power=1.0)
      >>> probs
      Array([0. , 0.5, 1. ], dtype=float32)

    References:
      Kerssies et al., "Your ViT is secretly an image segmentation model", 2025, section 3.3.
    """
    if starts.shape != ends.shape or starts.ndim != 1:
        raise ValueError(
            "starts, ends: expected shapes [blocks] and [blocks], got "
            f"{starts.shape} and {ends.shape}"
        )
    step, starts, ends = (jnp.asarray(x, jnp.float32) for x in (step, starts, ends))
    progress = jnp.clip((step - starts) / jnp.maximum(ends - starts, 1), 0, 1)
    return (1 - progress) ** power


_VIT_TINY: dict[str, Any] = {"features": 192, "depth": 12, "num_heads": 3}
_VIT_SMALL: dict[str, Any] = {"features": 384, "depth": 12, "num_heads": 6}
_VIT_BASE: dict[str, Any] = {"features": 768, "depth": 12, "num_heads": 12}
_VIT_LARGE: dict[str, Any] = {"features": 1024, "depth": 24, "num_heads": 16}

# The ε of DINOv3's ViTs differs from DINOv2's.
_DINOV3: dict[str, Any] = {"rotary": True, "epsilon": 1e-5}


def eomt_tiny(num_classes: int, **options: Any) -> EoMT:
    """A small EoMT, on a ViT-Ti/16 of 12 blocks: 6.3 million parameters with 133 classes.

    Segjax's own configuration: 100 queries, in the last 3 blocks.

    Args and Returns as in `eomt_large`.
    """
    settings: dict[str, Any] = {"num_queries": 100, "query_blocks": 3}
    return EoMT(num_classes, **_VIT_TINY | settings | options)


def eomt_small(num_classes: int, **options: Any) -> EoMT:
    """EoMT on a ViT-S/16: 24.0 million parameters with 133 classes.

    Args and Returns as in `eomt_large`.
    """
    return EoMT(num_classes, **_VIT_SMALL | {"query_blocks": 3} | options)


def eomt_base(num_classes: int, **options: Any) -> EoMT:
    """EoMT on a ViT-B/16: 93.7 million parameters with 133 classes.

    Args and Returns as in `eomt_large`.
    """
    return EoMT(num_classes, **_VIT_BASE | {"query_blocks": 3} | options)


def eomt_large(num_classes: int, **options: Any) -> EoMT:
    """EoMT on a ViT-L/16, for images of 640 pixels: 316.3 million parameters with 133 classes.

    The published models for semantic segmentation have `num_queries=100`, and `image_size` 512
    (ADE20K) or 1024 (Cityscapes).

    Args:
      num_classes: Number of classes, without "no object".
      **options: Attributes of `EoMT`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.eomt_tiny(133)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.class_logits.shape, output.mask_logits.shape
      ((1, 100, 134), (1, 100, 17, 16))

    References:
      Kerssies et al., "Your ViT is secretly an image segmentation model", 2025.
    """
    return EoMT(num_classes, **_VIT_LARGE | options)


def eomt_dinov3_small(num_classes: int, **options: Any) -> EoMT:
    """EoMT on DINOv3's ViT-S/16: 23.4 million parameters with 133 classes.

    Args and Returns as in `eomt_dinov3_large`.
    """
    return EoMT(num_classes, **_VIT_SMALL | _DINOV3 | {"query_blocks": 3} | options)


def eomt_dinov3_base(num_classes: int, **options: Any) -> EoMT:
    """EoMT on DINOv3's ViT-B/16: 92.4 million parameters with 133 classes.

    Args and Returns as in `eomt_dinov3_large`.
    """
    return EoMT(num_classes, **_VIT_BASE | _DINOV3 | {"query_blocks": 3} | options)


def eomt_dinov3_large(num_classes: int, **options: Any) -> EoMT:
    """EoMT on DINOv3's ViT-L/16, for images of any size: 315.0 million parameters with 133 classes.

    Args:
      num_classes: Number of classes, without "no object".
      **options: Attributes of `EoMT`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.eomt_dinov3_small(133)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.class_logits.shape, output.mask_logits.shape
      ((1, 200, 134), (1, 200, 17, 16))

    References:
      Kerssies et al., "Your ViT is secretly an image segmentation model", 2025; Siméoni et
      al., "DINOv3", 2025.
    """
    return EoMT(num_classes, **_VIT_LARGE | _DINOV3 | options)
