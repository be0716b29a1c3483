"""CLIP and SigLIP: an image tower and a text tower, whose embeddings are compared by cosine."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from segjax.models import layers
from segjax.models.clip_towers import ClipImageTower, ClipResNet, ClipTextTower
from segjax.models.image_model import ImageModel
from segjax.typing import Array

_TEMPERATURE, _SIGLIP_SCALE = 0.07, 10.0  # at the start
_ACTIVATIONS = {
    "quick_gelu": layers.quick_gelu,
    "gelu": layers.exact_gelu,
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}
Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClipOutput:
    """Embeddings of images and texts.

    Attributes:
      image: `[*b, d]`, of any length.
      text: `[*n, d]`, of any length.
      logit_scale: Scalar; logits are `exp(logit_scale) cos(image, text) + logit_bias`.
      logit_bias: Scalar; 0 in CLIP.
    """

    image: Float[jax.Array, "*b d"]
    text: Float[jax.Array, "*n d"]
    logit_scale: Float[jax.Array, ""]
    logit_bias: Float[jax.Array, ""]


class Clip(ImageModel):
    """An image tower and a text tower, whose embeddings are compared by cosine.

    `apply(variables, images, method="encode_image")` gives `[*b, d]` of images `[*b, h, w, c]`, and
    `apply(variables, ids, method="encode_text")` gives `[*n, d]` of token ids `[*n, length]`; both
    are of any length, as the originals'. `apply(variables, images, ids)` gives a `ClipOutput`.

    Attributes:
      image: Constructor of the image tower.
      text: Constructor of the text tower.
      bias: Whether the logits have a bias, as SigLIP's.
    """

    image: Callable[..., ClipImageTower | ClipResNet]
    text: Callable[..., ClipTextTower]
    bias: bool = False

    def setup(self) -> None:
        self.image_tower = self.image(name="image_tower", **self.shared_options)
        self.text_tower = self.text(name="text_tower", **self.shared_options)
        scale = _SIGLIP_SCALE if self.bias else 1 / _TEMPERATURE
        start = nn.initializers.constant(math.log(scale))
        self.logit_scale = self.param("logit_scale", start, (), self.param_dtype)
        if self.bias:
            start = nn.initializers.constant(-10.0)
            self.logit_bias = self.param("logit_bias", start, (), self.param_dtype)

    def encode_image(self, images: Float[Array, "*b h w c"]) -> Float[jax.Array, "*b d"]:
        """Embeddings of images, of any length.

        Args:
          images: `[*b, h, w, c]`, standardised.

        Returns:
          `[*b, d]`.
        """
        return self.image_tower(images)["embedding"].astype(self.output_dtype)

    def encode_text(self, ids: Int[Array, "*n length"]) -> Float[jax.Array, "*n d"]:
        """Embeddings of texts, of any length.

        Args:
          ids: `[*n, length]`, of tokens.

        Returns:
          `[*n, d]`.
        """
        return self.text_tower(ids)["embedding"].astype(self.output_dtype)

    def __call__(
        self, images: Float[Array, "*b h w c"], ids: Int[Array, "*n length"] | None = None
    ) -> ClipOutput:
        """Embeddings of images and texts.

        Args:
          images: `[*b, h, w, c]`, standardised.
          ids: `[*n, length]`, of tokens; None takes one text of zeros.

        Returns:
          Both, and what their logits are made with.
        """
        ids = jnp.zeros((1, 1), jnp.int32) if ids is None else ids
        bias = self.logit_bias if self.bias else jnp.zeros((), self.param_dtype)
        return ClipOutput(self.encode_image(images), self.encode_text(ids), self.logit_scale, bias)


def clip_vit_base_patch32(*, activation: Activation = "quick_gelu", **options: Any) -> Clip:
    """CLIP with a ViT-B/32: 151.3 million parameters.

    Args:
      activation: Function of the perceptrons. OpenAI's weights, and open_clip's names that end in
        "-quickgelu", are for "quick_gelu"; open_clip's plain names are for "gelu".
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> model = models.clip_vit_base_patch32()
      >>> images, ids = jnp.zeros((2, 224, 224, 3)), jnp.zeros((5, 77), int)
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images, ids)[0].text.shape
      (5, 512)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision", 2021,
      section 2.4 and table 20.
    """
    return _clip((768, 12, 12), (512, 12, 8), 512, 32, 224, activation, options)


def clip_vit_base_patch16(*, activation: Activation = "quick_gelu", **options: Any) -> Clip:
    """CLIP with a ViT-B/16: 149.6 million parameters.

    Args:
      activation: Function of the perceptrons. OpenAI's weights, and open_clip's names that end in
        "-quickgelu", are for "quick_gelu"; open_clip's plain names are for "gelu".
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> images, model = jnp.zeros((2, 224, 224, 3)), models.clip_vit_base_patch16()
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].image.shape
      (2, 512)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision", 2021.
    """
    return _clip((768, 12, 12), (512, 12, 8), 512, 16, 224, activation, options)


def clip_vit_large_patch14(*, activation: Activation = "quick_gelu", **options: Any) -> Clip:
    """CLIP with a ViT-L/14: 427.6 million parameters.

    Args:
      activation: Function of the perceptrons. OpenAI's weights, and open_clip's names that end in
        "-quickgelu", are for "quick_gelu"; open_clip's plain names are for "gelu".
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> images, model = jnp.zeros((2, 224, 224, 3)), models.clip_vit_large_patch14()
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].image.shape
      (2, 768)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision", 2021.
    """
    return _clip((1024, 24, 16), (768, 12, 12), 768, 14, 224, activation, options)


def clip_vit_large_patch14_336(*, activation: Activation = "quick_gelu", **options: Any) -> Clip:
    """CLIP with a ViT-L/14 for images of 336x336: 427.9 million parameters.

    Args:
      activation: Function of the perceptrons. OpenAI's weights, and open_clip's names that end in
        "-quickgelu", are for "quick_gelu"; open_clip's plain names are for "gelu".
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> images, model = jnp.zeros((2, 224, 224, 3)), models.clip_vit_large_patch14_336()
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].image.shape
      (2, 768)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision", 2021.
    """
    return _clip((1024, 24, 16), (768, 12, 12), 768, 14, 336, activation, options)


def clip_resnet50(*, activation: Activation = "quick_gelu", **options: Any) -> Clip:
    """CLIP with a ResNet-50: 102.0 million parameters.

    Args:
      activation: Function of the text tower's perceptrons. OpenAI's weights, and open_clip's names
        that end in "-quickgelu", are for "quick_gelu"; open_clip's plain names are for "gelu".
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> images, model = jnp.zeros((2, 224, 224, 3)), models.clip_resnet50()
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].image.shape
      (2, 1024)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision", 2021,
      section 2.4 and table 19.
    """
    return _clip_resnet((3, 4, 6, 3), 1024, activation, options)


def clip_resnet101(*, activation: Activation = "quick_gelu", **options: Any) -> Clip:
    """CLIP with a ResNet-101: 119.7 million parameters.

    Args:
      activation: Function of the text tower's perceptrons. OpenAI's weights, and open_clip's names
        that end in "-quickgelu", are for "quick_gelu"; open_clip's plain names are for "gelu".
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> images, model = jnp.zeros((2, 224, 224, 3)), models.clip_resnet101()
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].image.shape
      (2, 512)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision", 2021,
      section 2.4 and table 19.
    """
    return _clip_resnet((3, 4, 23, 3), 512, activation, options)


def siglip_base_patch16(*, vocabulary: int = 32000, **options: Any) -> Clip:
    """SigLIP with a ViT-B/16 for images of 224x224: 203.2 million parameters.

    Args:
      vocabulary: Number of token ids.
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> images, model = jnp.zeros((2, 224, 224, 3)), models.siglip_base_patch16()
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].image.shape
      (2, 768)

    References:
      Zhai et al., "Sigmoid loss for language image pre-training", 2023.
    """
    shared: dict[str, Any] = {"epsilon": 1e-6, "activation": _ACTIVATIONS["gelu_tanh"]}
    image = functools.partial(ClipImageTower, 768, 12, 12, 16, 224, None, **shared)
    text = functools.partial(ClipTextTower, 768, 12, 12, vocabulary, 64, 768, "last", **shared)
    return Clip(image, text, bias=True, **options)


def siglip2_base_patch16(**options: Any) -> Clip:
    """SigLIP 2 with a ViT-B/16 for images of 224x224: 375.2 million parameters.

    Args:
      **options: Attributes of `Clip`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> images, model = jnp.zeros((2, 224, 224, 3)), models.siglip2_base_patch16()
      >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].image.shape
      (2, 768)

    References:
      Tschannen et al., "SigLIP 2: multilingual vision-language encoders with improved semantic
      understanding, localization, and dense features", 2025.
    """
    return siglip_base_patch16(vocabulary=256000, **options)


def _clip(
    vision: tuple[int, int, int],
    text: tuple[int, int, int],
    embedding: int,
    patch_size: int,
    image_size: int,
    activation: Activation,
    options: dict[str, Any],
) -> Clip:
    """CLIP with a vision transformer; towers by their (features, depth, heads)."""
    shared: dict[str, Any] = {"epsilon": 1e-5, "activation": _ACTIVATIONS[activation]}
    image = functools.partial(ClipImageTower, *vision, patch_size, image_size, embedding, **shared)
    return Clip(image, _text_tower(*text, embedding, activation), **options)


def _clip_resnet(
    stage_sizes: tuple[int, ...], embedding: int, activation: Activation, options: dict[str, Any]
) -> Clip:
    image = functools.partial(ClipResNet, stage_sizes, embedding)
    return Clip(image, _text_tower(512, 12, 8, embedding, activation), **options)


def _text_tower(
    features: int, depth: int, heads: int, embedding: int, activation: Activation
) -> Callable[..., ClipTextTower]:
    shared: dict[str, Any] = {"epsilon": 1e-5, "activation": _ACTIVATIONS[activation]}
    return functools.partial(
        ClipTextTower, features, depth, heads, 49408, 77, embedding, "end", **shared
    )
