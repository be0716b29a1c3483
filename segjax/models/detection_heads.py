"""Parts of a detector after the backbone: a feature pyramid, and heads on it and on regions."""

from collections.abc import Sequence

import jax
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax import ops
from segjax.models.layers import Layer


class ConvNorm(nn.Module):
    """A convolution with optional batch norm.

    Attributes:
      features: Output channels.
      kernel_size: Kernel size along both axes.
      norm: Constructor of a norm; None for no norm.
      conv: Constructor of convolutions.
    """

    features: int
    kernel_size: int
    norm: Layer | None
    conv: Layer

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "*b h w c"], where: Bool[jax.Array, "..."] | None = None
    ) -> Float[jax.Array, "*b h w f"]:
        x = self.conv(self.features, self.kernel_size, use_bias=self.norm is None, name="conv")(x)
        return x if self.norm is None else self.norm(name="norm")(x, where)


class FeaturePyramid(nn.Module):
    """A feature pyramid: coarse features are upsampled and added to the finer ones.

    Attributes:
      features: Output channels of each level.
      block: Constructor of `ConvNorm`.

    References:
      Lin et al., "Feature pyramid networks for object detection", 2017, figure 3.
    """

    features: int
    block: Layer

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[jax.Array, "*b _ _ _"]]
    ) -> list[Float[jax.Array, "*b _ _ f"]]:
        coarsest = len(maps) - 1
        x = self.block(self.features, 1, name=f"inner{coarsest}")(maps[-1])
        merged = [x]
        for i in reversed(range(coarsest)):
            lateral = self.block(self.features, 1, name=f"inner{i}")(maps[i])
            x = lateral + ops.resize(x, lateral.shape[-3:-1], method="nearest")
            merged.insert(0, x)
        return [self.block(self.features, 3, name=f"layer{i}")(x) for i, x in enumerate(merged)]


class ProposalHead(nn.Module):
    """The region proposal head: objectness and box deltas of each anchor, at every level.

    Attributes:
      anchors: Number of anchors at each position.
      convs: Number of 3x3 convolutions that both outputs share.
      conv: Constructor of convolutions.
    """

    anchors: int
    convs: int
    conv: Layer

    @nn.compact
    def __call__(
        self, levels: Sequence[Float[jax.Array, "*b _ _ c"]]
    ) -> tuple[list[Float[jax.Array, "*b _"]], list[Float[jax.Array, "*b _ 4"]]]:
        init = {"kernel_init": nn.initializers.normal(0.01)}
        channels = levels[0].shape[-1]
        shared = [self.conv(channels, name=f"conv{i}", **init) for i in range(self.convs)]
        logits = self.conv(self.anchors, 1, name="logits", **init)
        deltas = self.conv(4 * self.anchors, 1, name="deltas", **init)
        all_logits, all_deltas = [], []
        for x in levels:
            for conv in shared:
                x = nn.relu(conv(x))
            lead = x.shape[:-3]
            all_logits.append(logits(x).reshape(*lead, -1))
            all_deltas.append(deltas(x).reshape(*lead, -1, 4))
        return all_logits, all_deltas


class BoxHead(nn.Module):
    """The box head: logits and box deltas of each class, from the features of a region.

    Attributes:
      classes: Number of classes, including the background.
      convs: Number of 3x3 convolutions, which keep the number of channels.
      features: Output channels of the dense layers after the convolutions.
      block: Constructor of `ConvNorm`.
      dense: Constructor of dense layers.
    """

    classes: int
    convs: int
    features: tuple[int, ...]
    block: Layer
    dense: Layer

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "*b p h w c"], where: Bool[jax.Array, "*b p"]
    ) -> tuple[Float[jax.Array, "*b p classes"], Float[jax.Array, "*b p classes 4"]]:
        for i in range(self.convs):
            x = nn.relu(self.block(x.shape[-1], 3, name=f"conv{i}")(x, where[..., None, None]))
        x = x.reshape(*x.shape[:-3], -1)
        for i, features in enumerate(self.features):
            x = nn.relu(self.dense(features, name=f"fc{i}")(x))
        logits = self.dense(self.classes, name="logits")(x)
        deltas = self.dense(4 * self.classes, name="deltas")(x)
        return logits, deltas.reshape(*logits.shape, 4)


class MaskHead(nn.Module):
    """The mask head: logits of a mask for each class, at twice the size of a region's features.

    Attributes:
      classes: Number of classes, including the background.
      convs: Number of 3x3 convolutions, which keep the number of channels.
      block: Constructor of `ConvNorm`.
      conv: Constructor of convolutions.
      up_conv: Constructor of transposed convolutions.
    """

    classes: int
    convs: int
    block: Layer
    conv: Layer
    up_conv: Layer

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "*b p h w c"], where: Bool[jax.Array, "*b p"]
    ) -> Float[jax.Array, "*b p mh mw classes"]:
        for i in range(self.convs):
            x = nn.relu(self.block(x.shape[-1], 3, name=f"conv{i}")(x, where[..., None, None]))
        x = nn.relu(self.up_conv(x.shape[-1], name="up_conv")(x))
        return self.conv(self.classes, 1, name="logits")(x)
