"""Multi-head attention, and the transformer block that stacks it with a perceptron."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Bool, Float

from segjax.mapping import map_shards
from segjax.models.layers.linear import Dtype
from segjax.models.layers.positions import rotate
from segjax.numerics import accumulation_dtype

# A layer's constructor with the options that all layers of a model share.
Layer = Callable[..., Any]


def exact_gelu(x: jax.Array) -> jax.Array:
    """`x Φ(x)`, with the normal distribution's `Φ` itself rather than an approximation."""
    return nn.gelu(x, approximate=False)


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x σ(1.702 x)`, which OpenAI's CLIP has in place of the GELU."""
    return x * nn.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Every token looks at all: `softmax(q kᵀ / √d) v`, head by head, and a matrix product.

    `where` broadcasts to `[*b, heads, n, n]` and is False where a token may not look at another.
    By `angles`, `[m, d / 2]`, the queries and keys of the last m tokens are turned before.

    Returns the tokens and the attention `[*b, heads, n, n]`, or None in its place: under
    differentiation or outside `jit`, who does not ask for the maps does not hold them.

    Attributes:
      num_heads: of `features / num_heads` channels each.
      dense: constructor of matrix products, with the options that a model's layers share.
      train: whether dropout drops.
      dropout: the probability of losing an entry of the attention, and of the result.
      return_attention: whether to return the maps.
      key_bias: whether the keys have a bias, as the queries and the values do.
    """

    num_heads: int
    dense: Layer
    train: bool
    dropout: float = 0.0
    return_attention: bool = False
    key_bias: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "*b n c"],
        where: Bool[jax.Array, "..."] | None = None,
        angles: Float[jax.Array, "m half"] | None = None,
    ) -> tuple[Float[jax.Array, "*b n c"], Float[jax.Array, "*b heads n n"] | None]:
        features = x.shape[-1]
        if features % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}; due is a divisor of {features}")
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        if self.key_bias:
            # One product gives queries, keys and values, each of all heads.
            qkv = self.dense(3 * features, name="qkv")(x)
        else:
            biased = {"query": True, "key": False, "value": True}
            products = (self.dense(features, use_bias=b, name=n)(x) for n, b in biased.items())
            qkv = jnp.concatenate(list(products), axis=-1)
        qkv = qkv.reshape(*x.shape[:-1], 3, self.num_heads, features // self.num_heads)
        query, key, value = (jnp.swapaxes(qkv[..., i, :, :], -3, -2) for i in range(3))
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        y, attention = attend(
            query,
            key,
            value,
            where=where,
            drop=drop if self.train and self.dropout else None,
            return_attention=self.return_attention,
        )
        y = drop(self.dense(features, name="output")(jnp.swapaxes(y, -3, -2).reshape(x.shape)))
        return y, attention


class MultiHeadAttention(nn.Module):
    """Queries look at keys: `softmax(q kᵀ / √d) v`, head by head, and a matrix product.

    `q`, `k` and `v` are matrix products of what it is called with: `queries`, `keys`, and `values`,
    one for each key. A query for which `where` is False everywhere looks at nothing: its result is
    the last product's bias.

    Returns the result and the attention `[*b, heads, q, k]`, or None in its place.

    Attributes:
      num_heads: of `features / num_heads` channels each, of as many features as the queries have.
      dense: constructor of matrix products, with the options that a model's layers share.
      train: whether dropout drops.
      dropout: the probability of losing an entry of the attention.
      return_attention: whether to return the maps.
    """

    num_heads: int
    dense: Layer
    train: bool
    dropout: float = 0.0
    return_attention: bool = False

    @nn.compact
    def __call__(
        self,
        queries: Float[jax.Array, "*b q c"],
        keys: Float[jax.Array, "*b k kc"],
        values: Float[jax.Array, "*b k vc"],
        where: Bool[jax.Array, "..."] | None = None,
    ) -> tuple[Float[jax.Array, "*b q c"], Float[jax.Array, "*b heads q k"] | None]:
        features = queries.shape[-1]
        if features % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}; due is a divisor of {features}")

        def heads(x, name):
            x = self.dense(features, name=name)(x)
            x = x.reshape(*x.shape[:-1], self.num_heads, features // self.num_heads)
            return jnp.swapaxes(x, -3, -2)

        drop = nn.Dropout(self.dropout, deterministic=False)
        y, attention = attend(
            heads(queries, "query"),
            heads(keys, "key"),
            heads(values, "value"),
            where=where,
            drop=drop if self.train and self.dropout else None,
            return_attention=self.return_attention,
        )
        y = jnp.swapaxes(y, -3, -2).reshape(queries.shape)
        return self.dense(features, name="output")(y), attention


class LayerScale(nn.Module):
    """A learned factor for each channel.

    Attributes:
      start: what it begins with.
      param_dtype: of the factors.
    """

    start: float
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b c"]) -> Float[jax.Array, "*b c"]:
        start = nn.initializers.constant(self.start)
        return x * self.param("scale", start, x.shape[-1:], self.param_dtype).astype(x.dtype)


class TransformerBlock(nn.Module):
    """`x + s₁ attention(norm(x))`, and then `x + s₂ mlp(norm(x))`; s scales each channel.

    The perceptron is four times as wide inside. Takes `where` and `angles`,
    and returns the tokens and the attention, as `SelfAttention` does.

    Attributes:
      num_heads: of the attention.
      dense: constructor of matrix products, with the options that a model's layers share.
      norm: likewise, of layer norms.
      train: whether dropout drops.
      dropout: the probability of losing an entry of attention and perceptron.
      drop_path: the probability of losing a whole branch of an example.
      scale: constructor of `LayerScale`; None for `s = 1`.
      return_attention: whether to return the maps.
      key_bias: as of `SelfAttention`.
      activation: function between the two layers of the perceptron.
    """

    num_heads: int
    dense: Layer
    norm: Layer
    train: bool
    dropout: float = 0.0
    drop_path: float = 0.0
    scale: Layer | None = None
    return_attention: bool = False
    key_bias: bool = True
    activation: Callable[[jax.Array], jax.Array] = exact_gelu

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "*b n c"],
        where: Bool[jax.Array, "..."] | None = None,
        angles: Float[jax.Array, "m half"] | None = None,
    ) -> tuple[Float[jax.Array, "*b n c"], Float[jax.Array, "*b heads n n"] | None]:
        features = x.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=not self.train)

        def branch(y, number):
            if self.scale is not None:
                y = self.scale(name=f"scale{number}")(y)
            return nn.Dropout(self.drop_path, (-2, -1), deterministic=not self.train)(y)

        attend = SelfAttention(
            self.num_heads,
            self.dense,
            self.train,
            self.dropout,
            self.return_attention,
            self.key_bias,
            name="attention",
        )
        y, attention = attend(self.norm(name="norm1")(x), where, angles)
        x = x + branch(y, 1)
        y = self.dense(4 * features, name="fc1")(self.norm(name="norm2")(x))
        y = drop(self.activation(y))
        y = drop(self.dense(features, name="fc2")(y))
        return x + branch(y, 2), attention


def attention_weights(
    query: Float[jax.Array, "*b q d"],
    key: Float[jax.Array, "*b k d"],
    *,
    bias: Float[jax.Array, "..."] | None = None,
    where: Bool[jax.Array, "..."] | None = None,
) -> Float[jax.Array, "*b q k"]:
    """How much each query attends to each key: `softmax(q kᵀ / √d + B)`, over the keys.

    Args:
      query: `[*b, q, d]`, the heads among the leading axes.
      key: `[*b, k, d]`.
      bias: `B`, broadcasts to `[*b, q, k]`; None for 0.
      where: broadcasts to `[*b, q, k]`; False where a query may not look.

    Returns:
      `[*b, q, k]` in the dtype of `query`, 0 where it may not look; the softmax is in at least
      float32.

    References:
      Vaswani et al., "Attention is all you need", 2017, eq. 1.
    """
    # Scaling the queries first keeps the scores of half precision in range.
    scores = (query * query.shape[-1] ** -0.5) @ jnp.swapaxes(key, -2, -1)
    scores = scores.astype(accumulation_dtype(scores))
    if bias is not None:
        scores += bias.astype(scores.dtype)
    if where is None:
        return jax.nn.softmax(scores).astype(query.dtype)
    # A finite least score: the softmax of a row without keys is then defined, and its gradient.
    weights = jax.nn.softmax(jnp.where(where, scores, jnp.finfo(scores.dtype).min))
    return jnp.where(where, weights, 0).astype(query.dtype)


def attend(
    query: Float[jax.Array, "*b q d"],
    key: Float[jax.Array, "*b k d"],
    value: Float[jax.Array, "*b k c"],
    *,
    where: Bool[jax.Array, "..."] | None = None,
    drop: Callable[[jax.Array], jax.Array] | None = None,
    return_attention: bool = False,
) -> tuple[Float[jax.Array, "*b q c"], Float[jax.Array, "*b q k"] | None]:
    """What each query finds where it looks: `softmax(q kᵀ / √d) v`.

    On a CPU the weights of large maps are held for one head at a time, and taken anew for the
    gradient, unless they are dropped from or returned.

    Args:
      query, key, where: as of `attention_weights`.
      value: `[*b, k, c]`, one for each key.
      drop: dropout of the weights; None for none.
      return_attention: whether to return the weights, before dropout.

    Returns:
      `[*b, q, c]`, 0 for a query that may look nowhere; and the weights, or None in their place.

    Example:
      >>> query, key, value = jnp.ones((1, 2, 3)), jnp.ones((1, 4, 3)), jnp.arange(4.0)[:, None]
      >>> attend(query, key, value[None], where=jnp.arange(4) < 2)[0].tolist()
      [[[0.5], [0.5]]]

    References:
      Vaswani et al., "Attention is all you need", 2017, eq. 1; Rabe and Staats,
      "Self-attention does not need O(n²) memory", 2021.
    """

    def all_heads(query, key, value, where):
        return attention_weights(query, key, where=where) @ value

    def one_by_one(*operands):
        # Matrices, since a product of stacks of one matrix runs on one thread.
        heads = jax.tree.map(lambda x: lax.collapse(x, 0, -2), operands)
        return lax.map(lambda head: jax.checkpoint(all_heads)(*head), heads)

    def by_head(query, key, value, where):
        if where is not None:
            where = jnp.broadcast_to(where, shape)
        y = map_shards(one_by_one, query, key, value, where)
        return y.reshape(*query.shape[:-1], value.shape[-1])

    shape = (*query.shape[:-1], key.shape[-2])
    if drop is not None or return_attention:
        attention = attention_weights(query, key, where=where)
        dropped = attention if drop is None else drop(attention)
        return dropped @ value, attention if return_attention else None
    operands = query, key, value, where
    # Of smaller maps a turn would cost more than it saves.
    if len(shape) == 2 or shape[-2] * shape[-1] < 2**19:
        return all_heads(*operands), None
    return lax.platform_dependent(*operands, cpu=by_head, default=all_heads), None
