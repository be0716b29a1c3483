"""The transformer of DETR: an encoder of pixels, and a decoder of queries."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax.models import layers
from segjax.models.layers import Dtype, Layer


def dense_and_norm(**dtypes: Dtype) -> tuple[Layer, Layer]:
    """Constructors of the dense layers and layer norms of DETR, MaskFormer and Mask2Former."""
    dense = functools.partial(layers.Dense, kernel_init=nn.initializers.xavier_uniform(), **dtypes)
    norm = functools.partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False, **dtypes)
    return dense, norm


class Perceptron(nn.Module):
    """A multilayer perceptron: dense layers with an activation between them.

    Attributes:
      features: Output channels of each layer.
      dense: Constructor of dense layers.
      activation: Activation function between the layers.
    """

    features: tuple[int, ...]
    dense: Layer
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b c"]) -> Float[jax.Array, "*b f"]:
        for i, features in enumerate(self.features):
            x = self.dense(features, name=f"fc{i}")(self.activation(x) if i else x)
        return x


class _Layer(nn.Module):
    """The parts of encoder and decoder layers.

    Attributes:
      num_heads: Number of attention heads.
      hidden_features: Hidden channels of the MLP.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
      train: Whether dropout is active.
      dropout: Dropout rate of the attention, the MLP and their results.
      return_attention: Whether to return the attention maps.
    """

    num_heads: int
    hidden_features: int
    dense: Layer
    norm: Layer
    train: bool
    dropout: float = 0.1
    return_attention: bool = False

    def _attend(self, name, queries, keys, values, where=None):
        options = (self.num_heads, self.dense, self.train, self.dropout, self.return_attention)
        where = None if where is None else where[..., None, None, :]  # of all heads and queries
        return layers.MultiHeadAttention(*options, name=name)(queries, keys, values, where)

    def _perceptron(self, x):
        y = self._drop(nn.relu(self.dense(self.hidden_features, name="fc1")(x)))
        return self.dense(x.shape[-1], name="fc2")(y)

    def _drop(self, x):
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)


class EncoderLayer(_Layer):
    """An encoder layer: `x = norm(x + attention(x))`, then `norm(x + mlp(x))`.

    Positions are added to queries and keys, but not to values. Returns the features and the
    attention `[*b, heads, n, n]`, or None.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "*b n c"],
        positions: Float[jax.Array, "*p n c"],
        where: Bool[jax.Array, "*w n"] | None = None,
    ) -> tuple[Float[jax.Array, "*b n c"], Float[jax.Array, "*b heads n n"] | None]:
        placed = x + positions
        y, attention = self._attend("self_attention", placed, placed, x, where)
        x = self.norm(name="norm1")(x + self._drop(y))
        return self.norm(name="norm2")(x + self._drop(self._perceptron(x))), attention


class DecoderLayer(_Layer):
    """A decoder layer: self-attention among queries, cross-attention to the memory, and an MLP.

    Each has a shortcut, and a layer norm after the sum. Returns the queries and their attention to
    the memory `[*b, heads, q, n]`, or None.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "*b q c"],
        query_positions: Float[jax.Array, "q c"],
        memory: Float[jax.Array, "*b n c"],
        positions: Float[jax.Array, "*p n c"],
        where: Bool[jax.Array, "*w n"] | None = None,
    ) -> tuple[Float[jax.Array, "*b q c"], Float[jax.Array, "*b heads q n"] | None]:
        placed = x + query_positions
        y, _ = self._attend("self_attention", placed, placed, x)
        x = self.norm(name="norm1")(x + self._drop(y))
        placed, keys = x + query_positions, memory + positions
        y, attention = self._attend("cross_attention", placed, keys, memory, where)
        x = self.norm(name="norm2")(x + self._drop(y))
        return self.norm(name="norm3")(x + self._drop(self._perceptron(x))), attention


class Encoder(nn.Module):
    """Encoder layers in sequence. Returns the features, and the attention of each layer.

    Attributes:
      num_layers: Number of layers.
      layer: Constructor of `EncoderLayer`, which takes its name.
    """

    num_layers: int
    layer: Layer

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "*b n c"],
        positions: Float[jax.Array, "*p n c"],
        where: Bool[jax.Array, "*w n"] | None = None,
    ) -> tuple[Float[jax.Array, "*b n c"], tuple]:
        attention = []
        for i in range(self.num_layers):
            x, weights = self.layer(name=f"layer{i}")(x, positions, where)
            attention.append(weights)
        return x, tuple(attention)


class Decoder(nn.Module):
    """Decoder layers in sequence, on queries that are 0 at first, with learned positions.

    Returns the queries after each layer, all after the same layer norm, and the attention of each
    layer to the memory.

    Attributes:
      num_layers: Number of layers.
      layer: Constructor of `DecoderLayer`, which takes its name.
      norm: Constructor of layer norms.
    """

    num_layers: int
    layer: Layer
    norm: Layer

    @nn.compact
    def __call__(
        self,
        query_positions: Float[jax.Array, "q c"],
        memory: Float[jax.Array, "*b n c"],
        positions: Float[jax.Array, "*p n c"],
        where: Bool[jax.Array, "*w n"] | None = None,
    ) -> tuple[Float[jax.Array, "layers *b q c"], tuple]:
        x = jnp.zeros((*memory.shape[:-2], *query_positions.shape), memory.dtype)
        states, attention = [], []
        for i in range(self.num_layers):
            x, weights = self.layer(name=f"layer{i}")(x, query_positions, memory, positions, where)
            states.append(x)
            attention.append(weights)
        # The next layer takes the queries before this norm, as in the authors' code; Hugging Face
        # with auxiliary losses takes them after it.
        return self.norm(name="norm")(jnp.stack(states)), tuple(attention)
