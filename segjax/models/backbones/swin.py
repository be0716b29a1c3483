"""Swin transformers: attention within windows, shifted in every second block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax.models import layers
from segjax.models.backbones.vit import token_layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype, Layer
from segjax.typing import Array


class WindowAttention(nn.Module):
    """Self-attention of a window's pixels: `softmax(q kᵀ / √d + B) v`, head by head.

    The bias `B` is learned for each offset between two pixels.

    Attributes:
      num_heads: Number of attention heads; each has `c / num_heads` channels.
      window_size: Side of the windows; each has `n = window_size²` pixels.
      dense: Constructor of dense layers.
      param_dtype: Dtype of the position biases.
    """

    num_heads: int
    window_size: int
    dense: Layer
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "*b windows n c"], where: Bool[jax.Array, "windows n n"] | None
    ) -> Float[jax.Array, "*b windows n c"]:
        features = x.shape[-1]

        def heads(name):
            y = self.dense(features, name=name)(x)
            return jnp.swapaxes(y.reshape(*y.shape[:-1], self.num_heads, -1), -3, -2)

        small = nn.initializers.truncated_normal(0.02)
        offsets = ((2 * self.window_size - 1) ** 2, self.num_heads)
        table = self.param("position_bias", small, offsets, self.param_dtype)
        bias = jnp.moveaxis(table[offset_index(self.window_size)], -1, 0)
        if where is not None:
            where = where[:, None]
        weights = layers.attention_weights(heads("query"), heads("key"), bias=bias, where=where)
        y = weights @ heads("value")
        return self.dense(features, name="output")(jnp.swapaxes(y, -3, -2).reshape(x.shape))


def offset_index(window_size: int) -> np.ndarray:
    """The row of the table of biases for each pair of pixels in a window, `[n, n]`."""
    rows, columns = np.divmod(np.arange(window_size**2), window_size)
    offset = lambda x: x[:, None] - x + window_size - 1
    return offset(rows) * (2 * window_size - 1) + offset(columns)


def unshifted_neighbours(size: tuple[int, ...], window_size: int, shift: int) -> jax.Array:
    """The attention mask of shifted windows: pixels that were neighbours before rolling the image.

    Args:
      size: Height and width, multiples of `window_size`.
      window_size: Side of the windows.
      shift: Number of pixels by which the image was rolled up and to the left.

    Returns:
      Bool `[windows, n, n]`.
    """
    below, right = (jnp.arange(length) >= length - shift for length in size)
    regions = (2.0 * below[:, None] + right)[..., None]
    windows = layers.space_to_depth(regions, window_size, 2).reshape(-1, window_size**2)
    return windows[:, :, None] == windows[:, None, :]


class SwinBlock(nn.Module):
    """Attention within windows and an MLP, each after a layer norm and with a shortcut.

    Attributes:
      num_heads: Number of attention heads.
      window_size: Side of the windows; the image is padded with zeros to whole windows.
      shift: Number of pixels by which the windows are shifted down and to the right. Windows at the
        border wrap around; pixels from opposite borders do not attend to each other.
      drop_path: Stochastic depth: the probability of dropping a branch for an example in training.
      dense: Constructor of dense layers.
      norm: Constructor of layer norms.
      train: Whether stochastic depth is active.
      param_dtype: Dtype of the position biases.
    """

    num_heads: int
    window_size: int
    shift: int
    drop_path: float
    dense: Layer
    norm: Layer
    train: bool
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w c"]:
        # Both branches are dropped, as in the authors' code; Hugging Face drops only the first.
        drop_path = nn.Dropout(self.drop_path, (-3, -2, -1), deterministic=not self.train)
        x = x + drop_path(self._attend(self.norm(name="norm1")(x)))
        y = self.dense(4 * x.shape[-1], name="fc1")(self.norm(name="norm2")(x))
        y = self.dense(x.shape[-1], name="fc2")(nn.gelu(y, approximate=False))
        return x + drop_path(y)

    def _attend(self, x: jax.Array) -> jax.Array:
        height, width, features = x.shape[-3:]
        x = layers.pad_to_multiple(x, self.window_size, 2, mode="constant")
        where = None
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), (-3, -2))
            where = unshifted_neighbours(x.shape[-3:-1], self.window_size, self.shift)
        blocks = layers.space_to_depth(x, self.window_size, 2)
        windows = blocks.reshape(*blocks.shape[:-3], -1, self.window_size**2, features)
        attention = WindowAttention(
            self.num_heads, self.window_size, self.dense, self.param_dtype, name="attention"
        )
        y = attention(windows, where).reshape(blocks.shape)
        y = layers.depth_to_space(y, self.window_size, 2)
        if self.shift:
            y = jnp.roll(y, (self.shift, self.shift), (-3, -2))
        return y[..., :height, :width, :]


class PatchMerging(nn.Module):
    """Halves the resolution: concatenates 2x2 pixels, and projects them to twice the channels."""

    dense: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b new_h new_w d"]:
        features = x.shape[-1]
        x = layers.pad_to_multiple(x, 2, 2, mode="constant")
        # The original's order: each column of the block from top to bottom.
        columns_first = layers.space_to_depth(jnp.swapaxes(x, -3, -2), 2, 2)
        x = self.norm(name="norm")(jnp.swapaxes(columns_first, -3, -2))
        return self.dense(2 * features, use_bias=False, name="reduction")(x)


class SwinTransformer(ImageModel):
    """A Swin transformer without its classifier.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` of any size and returns the
    features by name: `stage1` (stride 4), `stage2` (8), `stage3` (16) and `stage4` (32), each after
    its own layer norm, and `last`, those of the last stage after the classifier's layer norm.
    Training with `drop_path` needs a `dropout` key.

    Attributes:
      features: Channels of the first stage; each stage has twice those of the one before.
      stage_sizes: Number of blocks in each stage.
      head_features: Channels of each attention head.
      window_size: Side of the windows in tokens: at the first stage patches of 4 pixels.
      drop_path: Stochastic depth: the probability of dropping a branch of the last block in
        training; it grows linearly from 0 at the first block. 0.3 as in MaskFormer and Mask2Former.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    features: int
    stage_sizes: tuple[int, ...]
    head_features: int = 32
    window_size: int = 7
    drop_path: float = 0.3

    @nn.compact
    def __call__(
        self, images: Float[Array, "*b h w c"], train: bool = False
    ) -> dict[str, Float[jax.Array, "*b sh sw sc"]]:
        if self.features % self.head_features:
            raise ValueError(
                f"head_features: expected a divisor of {self.features}, got {self.head_features}"
            )
        dense, norm = token_layers(1e-5, **self.dtypes)
        block = nn.remat(SwinBlock) if self.remat else SwinBlock
        drop_paths = iter(np.linspace(0, self.drop_path, sum(self.stage_sizes)))

        x = layers.pad_to_multiple(jnp.asarray(images, self.dtype), 4, 2, mode="constant")
        x = layers.Conv(self.features, 4, 4, padding=0, name="embedding_conv", **self.dtypes)(x)
        x = norm(name="embedding_norm")(x)
        outputs = {}
        for stage, size in enumerate(self.stage_sizes, start=1):
            if stage > 1:
                x = PatchMerging(dense, norm, name=f"merging{stage - 1}")(x)
            for i in range(size):
                x = block(
                    num_heads=x.shape[-1] // self.head_features,
                    window_size=self.window_size,
                    shift=i % 2 * (self.window_size // 2),
                    drop_path=float(next(drop_paths)),
                    dense=dense,
                    norm=norm,
                    train=train,
                    param_dtype=self.param_dtype,
                    name=f"stage{stage}_block{i}",
                )(x)
            outputs[f"stage{stage}"] = norm(name=f"stage{stage}_norm")(x)
        outputs["last"] = norm(name="norm")(x)
        return outputs


def swin_tiny(**options: Any) -> SwinTransformer:
    """Swin-T without its classifier: 27.5 million parameters.

    Args:
      **options: Attributes of `SwinTransformer`.

    Returns:
      The module.

    Example:
      >>> from segjax.models import backbones
      >>> import jax
      >>> import jax.numpy as jnp
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> init = backbones.swin_tiny().init_with_output
      >>> features, _ = jax.eval_shape(init, jax.random.key(0), image)
      >>> features["stage4"].shape
      (1, 3, 2, 768)

    References:
      Liu et al., "Swin transformer: hierarchical vision transformer using shifted windows",
      2021, section 3; the norm of each stage's output as in what detects and segments with it.
    """
    return SwinTransformer(96, (2, 2, 6, 2), **options)


def swin_small(**options: Any) -> SwinTransformer:
    """Swin-S without its classifier: 48.8 million parameters.

    Args and Returns as in `swin_tiny`.
    """
    return SwinTransformer(96, (2, 2, 18, 2), **options)


def swin_base(**options: Any) -> SwinTransformer:
    """Swin-B with windows of 12, without its classifier: 86.9 million parameters.

    Args and Returns as in `swin_tiny`.
    """
    options = {"window_size": 12, **options}
    return SwinTransformer(128, (2, 2, 18, 2), **options)


def swin_large(**options: Any) -> SwinTransformer:
    """Swin-L with windows of 12, without its classifier: 195.2 million parameters.

    Args and Returns as in `swin_tiny`.
    """
    options = {"window_size": 12, **options}
    return SwinTransformer(192, (2, 2, 18, 2), **options)
