"""Prompts: templates that class names are put into, and the mean of their embeddings."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype
from segjax.ops.similarity import normalize
from segjax.typing import Array

_IMAGENET = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)
_IMAGENET_SMALL = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
_SCENE = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)

# By name: one plain template, CLIP's for ImageNet (80, and the 7 that do nearly as well), and
# MaskCLIP's, with five of scenes more.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.",),
    "imagenet7": _IMAGENET_SMALL,
    "imagenet80": _IMAGENET,
    "maskclip85": (*_IMAGENET, *_SCENE),
}


def fill_templates(names: Iterable[str], templates: Sequence[str]) -> list[str]:
    """Every name in every template.

    Args:
      names: Class names.
      templates: Texts in which `{}` stands for the name.

    Returns:
      The prompts: all of the first name, all of the second, and so on.

    Raises:
      ValueError: for a template without a place for the name, or with several.

    Example:
      >>> from segjax import text
      >>> text.fill_templates(["cat", "dog"], ["a {}.", "the {}."])
      ['a cat.', 'the cat.', 'a dog.', 'the dog.']
    """
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"templates: expected {{}} once in each, got {template!r}")
    return [template.replace("{}", name) for name in names for template in templates]


def ensemble(embeddings: Float[Array, "*b t d"]) -> Float[jax.Array, "*b d"]:
    """One embedding of a class from those of its prompts: `n(mean_t n(e_t))`, `n(x) = x / ‖x‖`.

    Args:
      embeddings: `[*b, t, d]`, of t prompts.

    Returns:
      `[*b, d]`, of length 1, at least float32; 0 where the prompts cancel out.

    Raises:
      ValueError: if `embeddings` has fewer than two axes.

    Example:
      >>> from segjax import text
      >>> import jax.numpy as jnp
      >>> text.ensemble(jnp.array([[3.0, 0.0], [0.0, 1.0]])).round(3)
      Array([0.707, 0.707], dtype=float32)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision",
      2021, section 3.1.4.
    """
    if embeddings.ndim < 2:
        raise ValueError(f"embeddings: expected shape [*b, t, d], got {embeddings.shape}")
    units = normalize(embeddings.astype(accumulation_dtype(embeddings)))
    return normalize(jnp.mean(units, axis=-2))
