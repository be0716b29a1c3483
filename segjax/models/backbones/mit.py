"""Mix Transformers, the encoders of SegFormer: attention with reduced keys at four scales."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Layer
from segjax.typing import Array


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values are reduced `reduction` times along each axis.

    Attributes:
      num_heads: Number of attention heads.
      reduction: Side of the blocks of pixels that each become one key.
      conv, dense, norm: Constructors of convolutions, dense layers and layer norms.
      return_attention: Whether to return the attention maps; otherwise None.
    """

    num_heads: int
    reduction: int
    conv: Layer
    dense: Layer
    norm: Layer
    return_attention: bool

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "*b h w c"]
    ) -> tuple[Float[jax.Array, "*b h w c"], Float[jax.Array, "*b heads q k"] | None]:
        features = x.shape[-1]
        context = x
        if self.reduction > 1:
            reduce = self.conv(
                features, self.reduction, self.reduction, padding=0, name="reduction_conv"
            )
            context = self.norm(name="reduction_norm")(reduce(x))

        def heads(y, name):
            y = self.dense(features, name=name)(y)
            y = y.reshape(*y.shape[:-3], -1, self.num_heads, features // self.num_heads)
            return jnp.swapaxes(y, -3, -2)

        where = layers.picture_tokens(context)
        y, attention = layers.attend(
            heads(x, "query"),
            heads(context, "key"),
            heads(context, "value"),
            where=None if where is None else where[..., None, None, :],
            return_attention=self.return_attention,
        )
        y = jnp.swapaxes(y, -3, -2).reshape(x.shape)
        return self.dense(features, name="output")(y), attention


class MixBlock(nn.Module):
    """Attention and a Mix-FFN, each after a layer norm and with a shortcut.

    The Mix-FFN has a depthwise 3x3 convolution between its two dense layers, whose zero padding
    tells positions. `drop_path` is the probability of dropping a branch in training.
    """

    num_heads: int
    reduction: int
    drop_path: float
    conv: Layer
    dense: Layer
    norm: Layer
    train: bool
    return_attention: bool

    @nn.compact
    def __call__(self, x):
        def drop_path(y):
            whole = nn.Dropout(self.drop_path, (-3, -2, -1), deterministic=not self.train)
            return whole(y)

        features = x.shape[-1]
        y, attention = EfficientAttention(
            self.num_heads,
            self.reduction,
            self.conv,
            self.dense,
            self.norm,
            self.return_attention,
            name="attention",
        )(self.norm(name="norm1")(x))
        x = x + drop_path(y)
        y = self.dense(4 * features, name="expand")(self.norm(name="norm2")(x))
        y = self.conv(4 * features, 3, groups=4 * features, name="depthwise")(y)
        y = self.dense(features, name="contract")(nn.gelu(y, approximate=False))
        return x + drop_path(y), attention


class MixStage(nn.Module):
    """A strided convolution that embeds overlapping patches, blocks, and a layer norm.

    `drop_paths` has the probability of stochastic depth for each block.
    """

    features: int
    patch_size: int
    stride: int
    num_heads: int
    reduction: int
    drop_paths: tuple[float, ...]
    conv: Layer
    dense: Layer
    norm: Layer
    train: bool
    remat: bool
    return_attention: bool

    @nn.compact
    def __call__(self, x):
        x = self.conv(self.features, self.patch_size, self.stride, name="embedding_conv")(x)
        x = self.norm(name="embedding_norm")(x)
        block = nn.remat(MixBlock) if self.remat else MixBlock
        maps = []
        for i, drop_path in enumerate(self.drop_paths):
            x, attention = block(
                self.num_heads,
                self.reduction,
                drop_path,
                self.conv,
                self.dense,
                self.norm,
                self.train,
                self.return_attention,
                name=f"block{i}",
            )(x)
            maps.append(attention)
        return self.norm(name="norm")(x), maps


class MixTransformer(ImageModel):
    """A Mix Transformer (MiT) without its classifier.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` with sides of at least 29 pixels
    and returns the features by name: `stage1` (stride 4), `stage2` (8), `stage3` (16) and `stage4`
    (32), and with `return_attention` the `attention` of every block, `[*b, heads, queries, keys]`,
    in order. Training needs a `dropout` key.

    Attributes:
      widths: Channels of each stage; each attention head has the channels of the first stage.
      stage_sizes: Number of blocks in each stage.
      drop_path: Stochastic depth: the probability of dropping a branch of the last block in
        training; it grows linearly from 0 at the first block.
      return_attention: Whether to return the attention maps, which are large in the first stage.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    widths: tuple[int, ...]
    stage_sizes: tuple[int, ...]
    drop_path: float = 0.1
    return_attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> dict[str, Any]:
        if min(images.shape[-3:-1]) < 29:
            raise ValueError(
                f"images: expected at least 29 rows and columns, got shape {images.shape}"
            )
        small = nn.initializers.truncated_normal(0.02)
        options: dict[str, Any] = {
            "conv": functools.partial(layers.Conv, **self.dtypes),
            "dense": functools.partial(layers.Dense, kernel_init=small, **self.dtypes),
            "norm": functools.partial(
                nn.LayerNorm, epsilon=1e-5, use_fast_variance=False, **self.dtypes
            ),
        }
        blocks = sum(self.stage_sizes)
        drop_paths = [self.drop_path * i / max(blocks - 1, 1) for i in range(blocks)]

        x = jnp.asarray(images, self.dtype)
        features: dict[str, Any] = {}
        maps = []
        for i, (width, size) in enumerate(zip(self.widths, self.stage_sizes, strict=True)):
            first = sum(self.stage_sizes[:i])
            x, stage_maps = MixStage(
                width,
                patch_size=(7, 3, 3, 3)[i],
                stride=(4, 2, 2, 2)[i],
                num_heads=width // self.widths[0],
                reduction=(8, 4, 2, 1)[i],
                drop_paths=tuple(drop_paths[first : first + size]),
                train=train,
                remat=self.remat,
                return_attention=self.return_attention,
                name=f"stage{i + 1}",
                **options,
            )(x)
            features[f"stage{i + 1}"] = x
            maps += stage_maps
        if self.return_attention:
            features["attention"] = tuple(maps)
        return features


# MiT-B1 to B5.
_WIDTHS = (64, 128, 320, 512)


def mit_b0(**options: Any) -> MixTransformer:
    """MiT-B0 without its classifier: 3.3 million parameters.

    Args:
      **options: Attributes of `MixTransformer`.

    Returns:
      The module.

    Example:
      >>> from segjax.models import backbones
      >>> import jax
      >>> import jax.numpy as jnp
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> init = backbones.mit_b0().init_with_output
      >>> features, _ = jax.eval_shape(init, jax.random.key(0), image)
      >>> features["stage4"].shape
      (1, 3, 2, 256)

    References:
      Xie et al., "SegFormer", 2021, section 3.1 and table 6; the norms' ε as in Hugging
      Face's models.
    """
    return MixTransformer((32, 64, 160, 256), (2, 2, 2, 2), **options)


def mit_b1(**options: Any) -> MixTransformer:
    """MiT-B1 without its classifier: 13.2 million parameters.

    Args and Returns as in `mit_b0`.
    """
    return MixTransformer(_WIDTHS, (2, 2, 2, 2), **options)


def mit_b2(**options: Any) -> MixTransformer:
    """MiT-B2 without its classifier: 24.2 million parameters.

    Args and Returns as in `mit_b0`.
    """
    return MixTransformer(_WIDTHS, (3, 4, 6, 3), **options)


def mit_b3(**options: Any) -> MixTransformer:
    """MiT-B3 without its classifier: 44.1 million parameters.

    Args and Returns as in `mit_b0`.
    """
    return MixTransformer(_WIDTHS, (3, 4, 18, 3), **options)


def mit_b4(**options: Any) -> MixTransformer:
    """MiT-B4 without its classifier: 60.8 million parameters.

    Args and Returns as in `mit_b0`.
    """
    return MixTransformer(_WIDTHS, (3, 8, 27, 3), **options)


def mit_b5(**options: Any) -> MixTransformer:
    """MiT-B5 without its classifier: 81.4 million parameters.

    Args and Returns as in `mit_b0`.
    """
    return MixTransformer(_WIDTHS, (3, 6, 40, 3), **options)
