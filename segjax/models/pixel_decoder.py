"""The pixel decoder of Mask2Former: deformable attention over three scales, and a finer fourth."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax import ops
from segjax.models import layers
from segjax.models.layers import Dtype, Layer
from segjax.models.transformer import dense_and_norm
from segjax.numerics import accumulation_dtype

Sizes = tuple[tuple[int, ...], ...]


def unflatten(x: Float[jax.Array, "..."], sizes: Sizes, axis: int = -2) -> list[jax.Array]:
    """Splits an axis of pixels into maps of these heights and widths."""
    ends = np.cumsum([math.prod(size) for size in sizes]).tolist()
    parts = jnp.split(x, ends[:-1], axis)
    before, behind = x.shape[:axis], x.shape[axis:][1:]
    return [part.reshape(*before, *size, *behind) for part, size in zip(parts, sizes, strict=True)]


class DeformableAttention(nn.Module):
    """Deformable attention: each pixel samples a few points of every level, at learned offsets.

    Attributes:
      num_heads: Number of attention heads; each has `c / num_heads` channels.
      sizes: Height and width of each level.
      dense: Constructor of dense layers.
      points: Number of points that each head samples from each level.
    """

    num_heads: int
    sizes: Sizes
    dense: Layer
    points: int = 4

    @nn.compact
    def __call__(
        self,
        queries: Float[jax.Array, "*b n c"],
        places: Float[jax.Array, "n 2"],
        memory: Float[jax.Array, "*b m c"],
        where: Bool[jax.Array, "*b m"] | None = None,
    ) -> Float[jax.Array, "*b n c"]:
        features = queries.shape[-1]
        shape = (self.num_heads, len(self.sizes), self.points)
        zeros = nn.initializers.zeros

        def product(name, features, bias_init=zeros):
            y = self.dense(features, kernel_init=zeros, bias_init=bias_init, name=name)(queries)
            return y.astype(accumulation_dtype(y))

        # Offsets are in pixels of each level.
        offsets = product("offsets", math.prod(shape) * 2, functools.partial(_star, points=shape))
        offsets = offsets.reshape(*queries.shape[:-1], *shape, 2)
        pixel = 1 / np.array(self.sizes)[:, None, ::-1]
        locations = places[:, None, None, None] + offsets * pixel.astype(offsets.dtype)

        weights = product("weights", math.prod(shape))
        weights = jax.nn.softmax(weights.reshape(*queries.shape[:-1], self.num_heads, -1))
        weights = weights.reshape(*queries.shape[:-1], *shape)

        values = self.dense(features, name="value")(memory)
        if where is not None:
            values = jnp.where(where[..., None], values, 0)
        heads = (self.num_heads, features // self.num_heads)
        levels = unflatten(values.reshape(*values.shape[:-1], *heads), self.sizes, axis=-3)
        read = ops.deformable_attention(levels, locations, weights)
        return self.dense(features, name="output")(read.reshape(queries.shape))


def _star(
    key: jax.Array, shape: tuple[int, ...], dtype: Dtype, *, points: tuple[int, int, int]
) -> jax.Array:
    """Initial offsets: each head has its own direction, with points 1, 2, 3 … pixels away."""
    heads, levels, reach = points
    angles = 2 * math.pi * np.arange(heads) / heads
    direction = np.stack([np.cos(angles), np.sin(angles)], -1)
    direction /= np.abs(direction).max(-1, keepdims=True)
    steps = direction[:, None, None] * np.arange(1, reach + 1)[:, None]
    star = np.broadcast_to(steps, (heads, levels, reach, 2))
    return jnp.asarray(star.reshape(shape), dtype)


class DeformableLayer(nn.Module):
    """A layer of deformable attention: `x = norm(x + attention(x))`, then `norm(x + mlp(x))`.

    Attributes:
      num_heads: Number of attention heads.
      sizes: Height and width of each level.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
    """

    num_heads: int
    sizes: Sizes
    dense: Layer
    norm: Layer

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "*b n c"],
        positions: Float[jax.Array, "*p n c"],
        places: Float[jax.Array, "n 2"],
        where: Bool[jax.Array, "*b n"] | None = None,
    ) -> Float[jax.Array, "*b n c"]:
        attend = DeformableAttention(self.num_heads, self.sizes, self.dense, name="attention")
        x = self.norm(name="norm1")(x + attend(x + positions, places, x, where))
        y = nn.relu(self.dense(4 * x.shape[-1], name="fc1")(x))
        return self.norm(name="norm2")(x + self.dense(x.shape[-1], name="fc2")(y))


class PixelDecoder(nn.Module):
    """The pixel decoder: deformable attention over three stages, and a fusion with the first.

    The pixels of the last three stages attend to each other; the finest result is upsampled and
    added to the first stage. Returns the features of stride 4 for the masks, and a list of those of
    strides 32, 16 and 8.

    Attributes:
      features: Channels of each scale, a multiple of 32.
      num_layers: Number of deformable attention layers.
      num_heads: Number of attention heads.
      remat: Whether to recompute the layers' activations in the backward pass.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int
    num_layers: int
    num_heads: int
    remat: bool = False
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, stages: dict[str, Float[jax.Array, "*b _ _ _"]]
    ) -> tuple[Float[jax.Array, "*b h w c"], list[Float[jax.Array, "*b _ _ c"]]]:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dense, layer_norm = dense_and_norm(**dtypes)
        conv: Layer = functools.partial(
            layers.Conv, kernel_init=nn.initializers.lecun_uniform(), **dtypes
        )
        group_norm: Layer = functools.partial(
            layers.group_norm, self.features, groups=32, epsilon=1e-5, **dtypes
        )

        levels = []
        for stage in ("stage4", "stage3", "stage2"):
            x = conv(self.features, 1, name=f"{stage}_projection")(stages[stage])
            levels.append(group_norm(name=f"{stage}_norm")(x))
        sizes = tuple(x.shape[-3:-1] for x in levels)
        start, shape = nn.initializers.normal(1.0), (len(levels), self.features)
        embedding = self.param("level_embedding", start, shape, self.param_dtype)
        positions = jnp.concatenate(
            [
                layers.sine_tokens(x, self.features, self.dtype) + level.astype(self.dtype)
                for x, level in zip(levels, embedding, strict=True)
            ],
            axis=-2,
        )
        centres = np.concatenate([_pixel_centres(size) for size in sizes])
        places = jnp.asarray(centres, jnp.promote_types(self.dtype, jnp.float32))

        tokens = [layers.picture_tokens(level) for level in levels]
        valid = [where for where in tokens if where is not None]
        where = jnp.concatenate(valid, axis=-1) if valid else None
        x = jnp.concatenate([layers.flatten(level) for level in levels], axis=-2)
        layer = nn.remat(DeformableLayer) if self.remat else DeformableLayer
        for i in range(self.num_layers):
            x = layer(self.num_heads, sizes, dense, layer_norm, name=f"layer{i}")(
                x, positions, places, where
            )
        levels = unflatten(x, sizes)

        side = conv(self.features, 1, use_bias=False, name="stage1_projection")(stages["stage1"])
        side = group_norm(name="stage1_norm")(side)
        x = layers.upsample(levels[-1], side.shape[-3:-1]) + side
        x = conv(self.features, 3, use_bias=False, name="fusion_conv")(x)
        x = nn.relu(group_norm(name="fusion_norm")(x))
        pixels = layers.repeat_border(conv(self.features, 1, name="mask_projection")(x))
        return pixels, levels


def _pixel_centres(size: tuple[int, ...]) -> np.ndarray:
    """`[h w, 2]`: (x, y) as fractions of the image, row by row."""
    height, width = size
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return np.stack([x, y], -1).reshape(-1, 2)
