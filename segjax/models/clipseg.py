"""CLIPSeg: a small decoder on a frozen CLIP, told by a text or an image what to segment."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from segjax.models import layers
from segjax.models.clip import Clip, clip_vit_base_patch16
from segjax.models.image_model import ImageModel
from segjax.models.outputs import SemanticOutput
from segjax.models.transformer import EncoderLayer, dense_and_norm
from segjax.typing import Array


class ClipSeg(ImageModel):
    """A decoder on a CLIP's tokens, which an embedding tells what to segment.

    `apply(variables, images, ids)` takes images `[*b, h, w, c]`, with sides that are multiples of
    the patch, and token ids `[n, length]`, and returns a `SemanticOutput` of logits
    `[*b, h, w, n]`: one binary mask a text. `method="segment"` takes embeddings `[n, d]` in place
    of the ids: of texts or of images, by `method="encode_text"` and `method="encode_image"`.

    Attributes:
      clip: Constructor of the CLIP.
      features: Channels of the decoder.
      blocks: Blocks of the image tower after which tokens are taken, counted from 0.
      num_heads: Heads of the decoder's attention.
      hidden_features: Hidden channels of the decoder's perceptrons.
      refined: Whether tokens become pixels by three convolutions instead of one.
    """

    clip: Callable[..., Clip] = clip_vit_base_patch16
    features: int = 64
    blocks: tuple[int, ...] = (3, 6, 9)
    num_heads: int = 4
    hidden_features: int = 2048
    refined: bool = False

    def setup(self) -> None:
        self.backbone = self.clip(name="clip", **self.shared_options)
        self.decoder = ClipSegDecoder(
            self.features,
            self.num_heads,
            self.hidden_features,
            self.refined,
            name="decoder",
            **self.dtypes,
        )

    def encode_image(self, images: Float[Array, "*n h w c"]) -> Float[jax.Array, "*n d"]:
        """Embeddings of images that show what to segment.

        Args:
          images: `[*n, h, w, c]`, standardised.

        Returns:
          `[*n, d]`.
        """
        return self.backbone.encode_image(images)

    def encode_text(self, ids: Int[Array, "*n length"]) -> Float[jax.Array, "*n d"]:
        """Embeddings of texts that say what to segment.

        Args:
          ids: `[*n, length]`, of tokens.

        Returns:
          `[*n, d]`.
        """
        return self.backbone.encode_text(ids)

    def segment(
        self, images: Float[Array, "*b h w c"], prompts: Float[Array, "n d"]
    ) -> SemanticOutput:
        """Logits of one mask for each prompt.

        Args:
          images: `[*b, h, w, c]`, standardised.
          prompts: `[n, d]`, embeddings of texts or images.

        Returns:
          Logits `[*b, h, w, n]`.
        """
        tower = self.backbone.image_tower
        states = tower(images)["states"]
        grid = (images.shape[-3] // tower.patch_size, images.shape[-2] // tower.patch_size)
        chosen = [states[block + 1] for block in self.blocks]
        masks = self.decoder(chosen, jnp.asarray(prompts), grid, tower.patch_size)
        return SemanticOutput(masks.astype(self.output_dtype))

    def __call__(
        self, images: Float[Array, "*b h w c"], ids: Int[Array, "n length"] | None = None
    ) -> SemanticOutput:
        """Logits of one mask for each text.

        Args:
          images: `[*b, h, w, c]`, standardised.
          ids: `[n, length]`, of tokens; None takes one text of zeros.

        Returns:
          Logits `[*b, h, w, n]`.
        """
        ids = jnp.zeros((1, 1), jnp.int32) if ids is None else ids
        return self.segment(images, self.encode_text(ids))


class ClipSegDecoder(nn.Module):
    """Transformer layers on the tokens of several blocks, the deepest first.

    Attributes:
      features: Channels.
      num_heads: Heads of the attention.
      hidden_features: Hidden channels of the perceptrons.
      refined: Whether tokens become pixels by three convolutions instead of one.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int
    num_heads: int
    hidden_features: int
    refined: bool
    dtype: layers.Dtype = jnp.float32
    param_dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        states: list[Float[jax.Array, "*b tokens c"]],
        prompts: Float[jax.Array, "n d"],
        grid: tuple[int, int],
        patch_size: int,
    ) -> Float[jax.Array, "*b h w n"]:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dense, norm = dense_and_norm(**dtypes)
        layer = functools.partial(
            EncoderLayer, self.num_heads, self.hidden_features, dense, norm, False
        )
        x: Any = 0.0
        for i, state in enumerate(reversed(states)):
            y = dense(self.features, name=f"reduce{i}")(state)
            if i == 0:  # what the prompt asks for: a factor and a shift of each channel
                y = y[..., None, :, :] * dense(self.features, name="film_mul")(prompts)[:, None]
                x = y + dense(self.features, name="film_add")(prompts)[:, None]
            else:
                x = y[..., None, :, :] + x
            x, _ = layer(name=f"layer{i}")(x, jnp.zeros(x.shape[-2:], x.dtype))
        x = x[..., 1:, :]  # the class token has no place
        x = x.reshape(*x.shape[:-2], *grid, self.features)
        if self.refined:
            x = nn.relu(layers.Conv(self.features, 3, name="conv", **dtypes)(x))
            side = patch_size // 4
            x = nn.relu(_Upscale(self.features // 2, side, name="upscale1", **dtypes)(x))
            x = _Upscale(1, side, name="upscale2", **dtypes)(x)
        else:
            x = _Upscale(1, patch_size, name="upscale", **dtypes)(x)
        return jnp.moveaxis(x[..., 0], -3, -1)


class _Upscale(nn.Module):
    """A transposed convolution whose kernel is as large as its stride.

    Attributes:
      features: Output channels.
      factor: Side of the kernel, and stride.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int
    factor: int
    dtype: layers.Dtype = jnp.float32
    param_dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h2 w2 f"]:
        blocks = layers.Dense(
            self.features * self.factor**2,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="kernel",
        )(x)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        return layers.depth_to_space(blocks, self.factor, 2) + bias.astype(blocks.dtype)


def clipseg_rd64(**options: Any) -> ClipSeg:
    """CLIPSeg with 64 channels: 150.7 million parameters, 1.1 of them in the decoder.

    Args:
      **options: Attributes of `ClipSeg`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> images, ids = jnp.zeros((2, 352, 352, 3)), jnp.zeros((3, 77), int)
      >>> init = models.clipseg_rd64().init_with_output
      >>> jax.eval_shape(init, jax.random.key(0), images, ids)[0].logits.shape
      (2, 352, 352, 3)

    References:
      Lüddecke and Ecker, "Image segmentation using text and image prompts", 2022, section 3.
    """
    return ClipSeg(**options)


def clipseg_rd64_refined(**options: Any) -> ClipSeg:
    """CLIPSeg with 64 channels and finer masks: 150.7 million parameters.

    Args:
      **options: Attributes of `ClipSeg`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> models.clipseg_rd64_refined().refined
      True

    References:
      Lüddecke and Ecker, "Image segmentation using text and image prompts", 2022, and its authors'
      weights "rd64-refined".
    """
    return ClipSeg(**{"refined": True, **options})


def clipseg_rd16(**options: Any) -> ClipSeg:
    """CLIPSeg with 16 channels: 149.9 million parameters.

    Args:
      **options: Attributes of `ClipSeg`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> models.clipseg_rd16().features
      16

    References:
      Lüddecke and Ecker, "Image segmentation using text and image prompts", 2022.
    """
    return ClipSeg(**{"features": 16, **options})
