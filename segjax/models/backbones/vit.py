"""Vision transformers as in timm, including DeiT and DINOv2."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax import ops
from segjax.models import layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype
from segjax.typing import Array

# Interpolates the position embeddings `[h, w, c]` of a grid to another shape.
Resize = Callable[[Array, tuple[int, int]], jax.Array]

# As in timm, and in DINOv2 with registers.
resize_bicubic: Resize = functools.partial(ops.resize, method="bicubic", antialias=True)


def resize_with_offset(
    embedding: Float[Array, "h w c"], shape: tuple[int, int]
) -> Float[jax.Array, "new_h new_w c"]:
    """Bicubic interpolation as in DINOv2, which adds 0.1 to the number of new patches.

    Output `i` is sampled at the input coordinate `(i + ½)·size/(new_size + 0.1) − ½`. The 0.1 was
    meant to avoid rounding errors, but the published weights were trained with these coordinates.
    """
    y, x = (
        (jnp.arange(new) + 0.5) * (old / (new + 0.1))
        for old, new in zip(embedding.shape[:2], shape, strict=True)
    )
    points = jnp.stack(jnp.meshgrid(x, y), axis=-1)
    return ops.sample(embedding, points, method="bicubic", padding="border")


class VisionTransformer(ImageModel):
    """A vision transformer: an embedding of patches, and blocks of self-attention.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size, pads them with zeros
    to whole patches, and returns a dictionary:

    - `stage1` … `stage4`: the patches after each quarter of the blocks, `[*b, rows, columns, f]`;
    - `patches`: the patches after the last layer norm;
    - `tokens`: all tokens after the last layer norm, `[*b, n, f]`: the class token, the
      distillation token or the registers, and the patches;
    - `classes`: logits of the class token, if there is a classifier;
    - `attention`: the attention of each block, `[*b, heads, n, n]`, with `return_attention`.

    Training with `drop_path` needs a `dropout` key.

    Attributes:
      features: Channels of each token.
      depth: Number of blocks.
      num_heads: Number of attention heads in each block.
      patch_size: Side of the patches, in pixels.
      image_size: Side, in pixels, of the square images for which the position embeddings are made;
        for other sizes they are interpolated.
      distilled: Whether there is a distillation token, as in DeiT.
      registers: Number of register tokens, as in DINOv2.
      layer_scale: Initial value of the learned scales of the blocks' branches; None for no scales.
      num_classes: Number of classes of the classifier on the class token; 0 for no classifier.
      epsilon: The layer norms' ε.
      resize: Function that interpolates the position embeddings.
      drop_path: Stochastic depth: the probability of dropping a branch of the last block in
        training; it grows linearly from 0 at the first block.
      return_attention: Whether to return the attention maps.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    features: int
    depth: int
    num_heads: int
    patch_size: int = 16
    image_size: int = 224
    distilled: bool = False
    registers: int = 0
    layer_scale: float | None = None
    num_classes: int = 0
    epsilon: float = 1e-6
    resize: Resize = resize_bicubic
    drop_path: float = 0.0
    return_attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> dict[str, Any]:
        dense, norm = token_layers(self.epsilon, dtype=self.dtype, param_dtype=self.param_dtype)
        images = jnp.asarray(images, self.dtype)
        x = layers.pad_to_multiple(images, self.patch_size, 2, mode="constant")
        x = self._embed(x)
        grid = x.shape[-3:-1]
        x = self._with_extra_tokens(x)

        block = nn.remat(layers.TransformerBlock) if self.remat else layers.TransformerBlock
        scale = None
        if self.layer_scale is not None:
            scale = functools.partial(
                layers.LayerScale, self.layer_scale, param_dtype=self.param_dtype
            )
        states, attention = [], []
        for i in range(self.depth):
            x, weights = block(
                self.num_heads,
                dense,
                norm,
                train,
                drop_path=self.drop_path * i / max(self.depth - 1, 1),
                scale=scale,
                return_attention=self.return_attention,
                name=f"block{i}",
            )(x)
            states.append(x)
            attention.append(weights)

        as_grid = lambda x: x[..., -math.prod(grid) :, :].reshape(*x.shape[:-2], *grid, -1)
        outputs: dict[str, Any] = {
            f"stage{k}": as_grid(states[-(-self.depth * k // 4) - 1]) for k in range(1, 5)
        }
        outputs["tokens"] = norm(name="norm")(x)
        outputs["patches"] = as_grid(outputs["tokens"])
        if self.num_classes:
            outputs["classes"] = dense(self.num_classes, name="head")(outputs["tokens"][..., 0, :])
        if self.return_attention:
            outputs["attention"] = tuple(attention)
        return outputs

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches."""
        return 1 + self.distilled + self.registers

    def _embed(self, images: jax.Array) -> jax.Array:
        """The embedding of patches: a convolution whose stride is its kernel size."""
        conv = layers.Conv(
            self.features,
            self.patch_size,
            self.patch_size,
            padding=0,
            **self.dtypes,
            name="patch_embedding",
        )
        return conv(images)

    def _with_extra_tokens(self, patches: jax.Array) -> jax.Array:
        """Adds class, distillation and register tokens, and positions to all but the registers."""
        *lead, rows, columns, features = patches.shape

        def tokens(name, number):
            shape = (1, number, features)
            return self.param(name, nn.initializers.normal(0.02), shape, self.param_dtype)

        def everywhere(x):
            return jnp.broadcast_to(x[0].astype(self.dtype), (*lead, *x.shape[1:]))

        own = [tokens("class_token", 1)]
        if self.distilled:
            own.append(tokens("distillation_token", 1))
        places = tokens("position_embedding", len(own) + (self.image_size // self.patch_size) ** 2)
        places = resize_positions(places, (rows, columns), self.resize)
        sequence = [*map(everywhere, own), patches.reshape(*lead, rows * columns, features)]
        x = jnp.concatenate(sequence, axis=-2) + everywhere(places)
        if self.registers:
            registers = everywhere(tokens("register_tokens", self.registers))
            first, rest = jnp.split(x, [len(own)], axis=-2)
            x = jnp.concatenate([first, registers, rest], axis=-2)
        return x


def token_layers(epsilon: float, **dtypes: Dtype) -> tuple[layers.Layer, layers.Layer]:
    """Constructors of a transformer's dense layers and layer norms."""
    dense = functools.partial(layers.Dense, kernel_init=nn.initializers.normal(0.02), **dtypes)
    norm = functools.partial(nn.LayerNorm, epsilon=epsilon, use_fast_variance=False, **dtypes)
    return dense, norm


def resize_positions(
    embedding: Float[Array, "1 n c"], grid: tuple[int, int], resize: Resize
) -> Float[jax.Array, "1 m c"]:
    """Interpolates position embeddings of a square grid of patches to another grid.

    Those of the tokens before the patches are kept.

    Args:
      embedding: `[1, extra + side², c]`, with at least one extra token.
      grid: (rows, columns) of the new patches.
      resize: Function that interpolates `[side, side, c]` to `[*grid, c]`.
    """
    side = math.isqrt(embedding.shape[1] - 1)
    # Segmenter's code compares only the numbers of patches, so that a grid of another shape with as
    # many patches keeps embeddings of other positions. Here they are interpolated.
    if grid == (side, side):
        return jnp.asarray(embedding)
    extra, patches = jnp.split(embedding, [embedding.shape[1] - side**2], axis=1)
    patches = resize(patches.reshape(side, side, -1), grid)
    return jnp.concatenate([extra, patches.reshape(1, -1, patches.shape[-1])], axis=1)


def vit_tiny_patch16(**options: Any) -> VisionTransformer:
    """ViT-Ti/16 without its classifier: 5.5 million parameters.

    Args:
      **options: Attributes of `VisionTransformer`.

    Returns:
      The module.

    Example:
      >>> from segjax.models import backbones
      >>> import jax
      >>> import jax.numpy as jnp
      >>> images = jax.ShapeDtypeStruct((1, 100, 64, 3), jnp.float32)
      >>> init = backbones.vit_tiny_patch16().init_with_output
      >>> features, variables = jax.eval_shape(init, jax.random.key(0), images)
      >>> features["patches"].shape, features["tokens"].shape
      ((1, 7, 4, 192), (1, 29, 192))

    References:
      Dosovitskiy et al., "An image is worth 16x16 words", 2020; with `distilled`, Touvron et
      al., "Training data-efficient image transformers & distillation through attention", 2020.
    """
    return VisionTransformer(192, 12, 3, **options)


def vit_small_patch16(**options: Any) -> VisionTransformer:
    """ViT-S/16 without its classifier: 21.7 million parameters.

    Args and Returns as in `vit_tiny_patch16`.
    """
    return VisionTransformer(384, 12, 6, **options)


def vit_base_patch16(**options: Any) -> VisionTransformer:
    """ViT-B/16 without its classifier: 85.8 million parameters.

    Args and Returns as in `vit_tiny_patch16`.
    """
    return VisionTransformer(768, 12, 12, **options)


def vit_large_patch16(**options: Any) -> VisionTransformer:
    """ViT-L/16 without its classifier: 303.3 million parameters.

    Args and Returns as in `vit_tiny_patch16`.
    """
    return VisionTransformer(1024, 24, 16, **options)


def dinov2_small(**options: Any) -> VisionTransformer:
    """DINOv2's ViT-S/14: 22.1 million parameters. `registers=4` makes the variant with registers.

    Args:
      **options: Attributes of `VisionTransformer`.

    Returns:
      The module.

    Example:
      >>> from segjax.models import backbones
      >>> backbones.dinov2_small(registers=4).prefix_tokens
      5

    References:
      Oquab et al., "DINOv2: learning robust visual features without supervision", 2023;
      registers: Darcet et al., "Vision transformers need registers", 2023.
    """
    return VisionTransformer(384, 12, 6, **_dinov2(options))


def dinov2_base(**options: Any) -> VisionTransformer:
    """DINOv2's ViT-B/14: 86.6 million parameters. `registers=4` makes the variant with registers.

    Args and Returns as in `dinov2_small`.
    """
    return VisionTransformer(768, 12, 12, **_dinov2(options))


def dinov2_large(**options: Any) -> VisionTransformer:
    """DINOv2's ViT-L/14: 304.4 million parameters. `registers=4` makes the variant with registers.

    Args and Returns as in `dinov2_small`.
    """
    return VisionTransformer(1024, 24, 16, **_dinov2(options))


def _dinov2(options: dict[str, Any]) -> dict[str, Any]:
    """The options of DINOv2, updated; the variant with registers resizes without the offset."""
    resize = resize_bicubic if options.get("registers") else resize_with_offset
    return {"patch_size": 14, "image_size": 518, "layer_scale": 1e-5, "resize": resize} | options
