"""The towers of CLIP and SigLIP: images or texts to embeddings."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from segjax import ops
from segjax.models import layers
from segjax.models.backbones.vit import resize_positions, token_layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype
from segjax.typing import Array

_HEAD_WIDTH = 64  # channels of a head in the pooling of residual networks


class ClipImageTower(ImageModel):
    """A vision transformer with one embedding for the whole image.

    `apply(variables, images)` takes `[*b, h, w, c]` of any size, filled up with zeros to whole
    patches, and returns a dictionary:

    - `embedding`: `[*b, d]`, of the class token, or by a pooling query that attends to all tokens;
    - `tokens`: `[*b, n, f]`, those after the last block;
    - `states`: the tokens before the first block, and after each.

    Attributes:
      features: Channels of a token.
      depth: Number of blocks.
      num_heads: Heads of their attention.
      patch_size: Side of the patches in pixels.
      image_size: Side of the square images that the position embeddings are for; to any other size
        they are interpolated.
      embedding: Channels of the embedding, to which the class token is projected; None pools by
        attention, without projection, as SigLIP does.
      epsilon: Epsilon of the layer norms.
      activation: Function between the two layers of a block's perceptron.
    """

    features: int
    depth: int
    num_heads: int
    patch_size: int
    image_size: int
    embedding: int | None
    epsilon: float
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"]) -> dict[str, Any]:
        dense, norm = token_layers(self.epsilon, **self.dtypes)
        pooled = self.embedding is None
        images = jnp.asarray(images, self.dtype)
        x = layers.pad_to_multiple(images, self.patch_size, 2, mode="constant")
        x = layers.Conv(
            self.features,
            self.patch_size,
            self.patch_size,
            padding=0,
            use_bias=pooled,
            name="patch_embedding",
            **self.dtypes,
        )(x)
        *lead, rows, columns, _ = x.shape
        x = x.reshape(*lead, rows * columns, self.features)
        side = self.image_size // self.patch_size
        start = nn.initializers.normal(self.features**-0.5)
        places = self.param(
            "position_embedding",
            start,
            (side**2 + (not pooled), self.features),
            self.param_dtype,
        )
        if not pooled:
            token = self.param("class_token", start, (self.features,), self.param_dtype)
            token = jnp.broadcast_to(token.astype(self.dtype), (*lead, 1, self.features))
            x = jnp.concatenate([token, x], axis=-2)
        x = x + _resize_places(places, (rows, columns)).astype(self.dtype)
        if not pooled:
            x = norm(name="norm_pre")(x)
        states = _run_blocks(self, x, dense, norm, None)
        tokens = states[-1]
        if pooled:
            pool = AttentionPool(self.num_heads, self.activation, self.param_dtype, name="pool")
            embedding = pool(norm(name="norm_post")(tokens), dense, norm)
        else:
            embedding = norm(name="norm_post")(tokens[..., 0, :])
            embedding = dense(self.embedding, use_bias=False, name="projection")(embedding)
        return {"embedding": embedding, "tokens": tokens, "states": states}


class ClipResNet(ImageModel):
    """CLIP's residual network, with one embedding for the whole image.

    It differs from `backbones.ResNet` in a stem of three convolutions, in average pooling before
    each strided convolution (which then has stride 1), and in a head that pools by attention.
    `apply(variables, images, train=False)` takes `[*b, h, w, c]`, of sides of at least 32 pixels,
    and returns a dictionary: `embedding` `[*b, d]`, and the features `stem` (stride 4), `stage1`
    (4), `stage2` (8), `stage3` (16) and `stage4` (32).

    Attributes:
      stage_sizes: Number of blocks of each stage.
      embedding: Channels of the embedding.
      image_size: Side of the square images that the position embeddings of the head are for; to any
        other size they are interpolated.
      width: Channels of the stem and of the first stage's blocks; each stage has twice as many.
    """

    stage_sizes: tuple[int, ...]
    embedding: int
    image_size: int = 224
    width: int = 64

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> dict[str, Any]:
        conv: layers.Layer = functools.partial(layers.Conv, use_bias=False, **self.dtypes)
        norm = self.batch_norm(train)
        block = nn.remat(_ClipBottleneck) if self.remat else _ClipBottleneck
        x = jnp.asarray(images, self.dtype)
        for i, (width, stride) in enumerate(
            [(self.width // 2, 2), (self.width // 2, 1), (self.width, 1)]
        ):
            x = conv(width, 3, stride, name=f"stem_conv{i + 1}")(x)
            x = nn.relu(norm(name=f"stem_norm{i + 1}")(x))
        x = _average_pool(x, 2)
        outputs: dict[str, Any] = {"stem": x}
        for stage, blocks in enumerate(self.stage_sizes):
            for i in range(blocks):
                stride = 2 if stage and not i else 1
                x = block(
                    self.width * 2**stage, stride, conv, norm, name=f"stage{stage + 1}_block{i}"
                )(x)
            outputs[f"stage{stage + 1}"] = x
        outputs["embedding"] = self._pool(x)
        return outputs

    def _pool(self, x: jax.Array) -> jax.Array:
        """The mean token attends to itself and to all positions."""
        *lead, rows, columns, features = x.shape
        heads = features // _HEAD_WIDTH
        dense: layers.Layer = functools.partial(layers.Dense, **self.dtypes)
        start = nn.initializers.normal(features**-0.5)
        side = self.image_size // 32
        places = self.param("position_embedding", start, (1 + side**2, features), self.param_dtype)
        tokens = x.reshape(*lead, rows * columns, features)
        tokens = jnp.concatenate([tokens.mean(-2, keepdims=True), tokens], axis=-2)
        tokens += _resize_places(places, (rows, columns)).astype(self.dtype)

        def split(tokens, name):
            y = dense(features, name=name)(tokens)
            return jnp.swapaxes(y.reshape(*y.shape[:-1], heads, _HEAD_WIDTH), -3, -2)

        query = split(tokens[..., :1, :], "query")
        y, _ = layers.attend(query, split(tokens, "key"), split(tokens, "value"))
        y = jnp.swapaxes(y, -3, -2).reshape(*lead, features)
        return dense(self.embedding, name="output")(y)


class _ClipBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; a stride is average pooling."""

    features: int
    stride: int
    conv: layers.Layer
    norm: layers.Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm(name="norm1")(self.conv(self.features, 1, name="conv1")(x)))
        y = nn.relu(self.norm(name="norm2")(self.conv(self.features, 3, name="conv2")(y)))
        y = self.conv(4 * self.features, 1, name="conv3")(_average_pool(y, self.stride))
        y = self.norm(name="norm3")(y)
        if self.stride > 1 or x.shape[-1] != y.shape[-1]:
            x = self.conv(y.shape[-1], 1, name="shortcut_conv")(_average_pool(x, self.stride))
            x = self.norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ClipTextTower(ImageModel):
    """A transformer of a text's tokens with one embedding for the whole text.

    `apply(variables, ids)` takes `[*n, length]` and returns a dictionary as `ClipImageTower` does.

    Attributes:
      features: Channels of a token.
      depth: Number of blocks.
      num_heads: Heads of their attention.
      vocabulary: Number of token ids.
      length: The most tokens that a text has.
      embedding: Channels of the embedding.
      pooling: "end": a token looks at those before it alone, and the text's is that with the
        largest id, its end, as in CLIP; "last": all look at all, and the text's is the last token,
        whatever it is, as in SigLIP.
      epsilon: Epsilon of the layer norms.
      activation: Function between the two layers of a block's perceptron.
    """

    features: int
    depth: int
    num_heads: int
    vocabulary: int
    length: int
    embedding: int
    pooling: Literal["end", "last"]
    epsilon: float
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, ids: Int[Array, "*n length"]) -> dict[str, Any]:
        count = ids.shape[-1]
        if count > self.length:
            raise ValueError(f"ids: expected at most {self.length} tokens, got {count}")
        dense, norm = token_layers(self.epsilon, **self.dtypes)
        start = nn.initializers.normal(0.02)
        table = self.param(
            "token_embedding", start, (self.vocabulary, self.features), self.param_dtype
        )
        places = self.param(
            "position_embedding", start, (self.length, self.features), self.param_dtype
        )
        x = (jnp.asarray(table)[ids] + places[:count]).astype(self.dtype)
        causal = self.pooling == "end"
        states = _run_blocks(self, x, dense, norm, jnp.tri(count, dtype=bool) if causal else None)
        x = norm(name="norm")(states[-1])
        if causal:
            last = jnp.argmax(ids, axis=-1)[..., None, None]
            pooled = jnp.take_along_axis(x, last, axis=-2)[..., 0, :]
        else:
            pooled = x[..., -1, :]
        embedding = dense(self.embedding, use_bias=not causal, name="projection")(pooled)
        return {"embedding": embedding, "tokens": states[-1], "states": states}


class AttentionPool(nn.Module):
    """One embedding from all tokens: a learnt query attends to them, and a perceptron follows.

    Attributes:
      num_heads: Heads of the attention.
      activation: Function between the two layers of the perceptron.
      param_dtype: Dtype of the parameters.
    """

    num_heads: int
    activation: Callable[[jax.Array], jax.Array]
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[jax.Array, "*b n f"], dense: layers.Layer, norm: layers.Layer
    ) -> Float[jax.Array, "*b f"]:
        features = tokens.shape[-1]
        probe = self.param(
            "probe", nn.initializers.xavier_uniform(), (1, features), self.param_dtype
        )
        probe = jnp.broadcast_to(probe.astype(tokens.dtype), (*tokens.shape[:-2], 1, features))
        attend = layers.MultiHeadAttention(self.num_heads, dense, False, name="attention")
        x, _ = attend(probe, tokens, tokens)
        y = dense(4 * features, name="fc1")(norm(name="norm")(x))
        return (x + dense(features, name="fc2")(self.activation(y)))[..., 0, :]


def _average_pool(x: jax.Array, side: int) -> jax.Array:
    return x if side == 1 else nn.avg_pool(x, (side, side), (side, side))


def _run_blocks(
    tower: ImageModel, x: jax.Array, dense: layers.Layer, norm: layers.Layer, where: Any
) -> tuple[jax.Array, ...]:
    """The tokens before the first block, and after each."""
    block = nn.remat(layers.TransformerBlock) if tower.remat else layers.TransformerBlock
    states = [x]
    for i in range(tower.depth):
        x, _ = block(
            tower.num_heads,
            dense,
            norm,
            False,
            activation=tower.activation,
            name=f"block{i}",
        )(x, where)
        states.append(x)
    return tuple(states)


def _resize_places(places: Array, grid: tuple[int, int]) -> jax.Array:
    """Position embeddings `[extra + side², f]` on another grid, bicubic as Hugging Face's."""
    places, resize = jnp.asarray(places), functools.partial(ops.resize, method="bicubic")
    if math.isqrt(len(places)) ** 2 == len(places):  # without a class token
        side = math.isqrt(len(places))
        return resize(places.reshape(side, side, -1), grid).reshape(math.prod(grid), -1)
    return resize_positions(places[None], grid, resize)[0]
