"""Multi-head attention, and transformer blocks."""

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

# The constructor of a layer.
Layer = Callable[..., Any]


def exact_gelu(x: jax.Array) -> jax.Array:
    """`x Φ(x)`, with the normal distribution's `Φ` itself rather than an approximation."""
    return nn.gelu(x, approximate=False)


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x σ(1.702 x)`, which OpenAI's CLIP has in place of the GELU."""
    return x * nn.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Multi-head self-attention: `softmax(q kᵀ / √d) v` for each head, and a dense layer.

    `where` broadcasts to `[*b, heads, n, n]` and is False where a token may not attend to another.
    `angles`, `[m, d / 2]`, rotate the queries and keys of the last m tokens.

    Returns the tokens, and the attention `[*b, heads, n, n]` or None: maps that are not requested
    are not stored.

    Attributes:
      num_heads: Number of attention heads; each has `features / num_heads` channels.
      dense: Constructor of dense layers.
      train: Whether dropout is active.
      dropout: Dropout rate of the attention weights and of the result.
      return_attention: Whether to return the attention maps.
      key_bias: Whether the keys have a bias, as queries and values do.
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
            raise ValueError(f"num_heads: expected a divisor of {features}, got {self.num_heads}")
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        if self.key_bias:
            # A single product for queries, keys and values of all heads.
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
    """Multi-head attention: `softmax(q kᵀ / √d) v` for each head, and a dense layer.

    `q`, `k` and `v` are dense layers of `queries`, `keys` and `values`, one for each key. A query
    for which `where` is False everywhere attends to nothing: its result is the last layer's bias.

    Returns the result, and the attention `[*b, heads, q, k]` or None.

    Attributes:
      num_heads: Number of attention heads; each has `c / num_heads` channels, with c those of the
        queries.
      dense: Constructor of dense layers.
      train: Whether dropout is active.
      dropout: Dropout rate of the attention weights.
      return_attention: Whether to return the attention maps.
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
            raise ValueError(f"num_heads: expected a divisor of {features}, got {self.num_heads}")

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
    """LayerScale: a learned factor for each channel.

    Attributes:
      start: Initial value.
      param_dtype: Dtype of the parameters.
    """

    start: float
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b c"]) -> Float[jax.Array, "*b c"]:
        start = nn.initializers.constant(self.start)
        return x * self.param("scale", start, x.shape[-1:], self.param_dtype).astype(x.dtype)


class TransformerBlock(nn.Module):
    """A transformer block: `x + s₁ attention(norm(x))`, then `x + s₂ mlp(norm(x))`.

    The factors s scale each channel. The MLP has four times as many hidden channels. Takes `where`
    and `angles`, and returns the tokens and the attention, as `SelfAttention` does.

    Attributes:
      num_heads: Number of attention heads.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
      train: Whether dropout is active.
      dropout: Dropout rate of the attention and the MLP.
      drop_path: Stochastic depth: the probability of dropping a branch for an example in training.
      scale: Constructor of `LayerScale`; None for `s = 1`.
      return_attention: Whether to return the attention maps.
      key_bias: Whether the keys have a bias, as queries and values do.
      activation: Activation function of the MLP.
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
    """The attention of each query to each key: `softmax(q kᵀ / √d + B)`, over the keys.

    Args:
      query: `[*b, q, d]`; heads are leading axes.
      key: `[*b, k, d]`.
      bias: `B`, broadcasts to `[*b, q, k]`; None for 0.
      where: Broadcasts to `[*b, q, k]`; False where a query may not attend.

    Returns:
      `[*b, q, k]` in the dtype of `query`, 0 where `where` is False; the softmax is computed in at
      least float32.

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
    # A finite score, so that the softmax of a row without keys and its gradient are defined.
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
    """Attention: `softmax(q kᵀ / √d) v`.

    On a CPU the weights of large maps are computed for one head at a time, and again for the
    gradient, unless `drop` or `return_attention` needs them.

    Args:
      query: `[*b, q, d]`; heads are leading axes.
      key: `[*b, k, d]`.
      value: `[*b, k, c]`, one for each key.
      where: Broadcasts to `[*b, q, k]`; False where a query may not attend.
      drop: Function that applies dropout to the weights; None for no dropout.
      return_attention: Whether to return the weights, before dropout.

    Returns:
      `[*b, q, c]`, 0 for a query that may not attend to any key; and the weights `[*b, q, k]`, or
      None.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.models.layers.attention import attend
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
    # For smaller maps a turn of the loop would cost more than it saves.
    if len(shape) == 2 or shape[-2] * shape[-1] < 2**19:
        return all_heads(*operands), None
    return lax.platform_dependent(*operands, cpu=by_head, default=all_heads), None
