"""Dense features of CLIP without training: its last block, changed so that patches stay local.

`x` are the tokens before the last block, `n(x)` after its first norm; `q`, `k` and `v` are its
queries, keys and values of each head of `d` channels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models.clip import Clip
from segjax.models.clip_towers import ClipImageTower
from segjax.numerics import accumulation_dtype
from segjax.ops import resize
from segjax.ops.similarity import normalize
from segjax.typing import Array

DenseMethod = Literal["clip", "maskclip", "sclip", "clearclip", "naclip", "proxyclip"]
Heads = Float[jax.Array, "*b heads n d"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenseClipOutput:
    """An embedding of each patch, in the space of the texts.

    Attributes:
      features: `[*b, rows, columns, d]`, of any length.
      keys: `[*b, rows, columns, f]`, those of the last block, by which `smooth_by_keys` compares
        patches.
    """

    features: Float[jax.Array, "*b rows columns d"]
    keys: Float[jax.Array, "*b rows columns f"]


def dense_clip(
    model: Clip,
    variables: Mapping[str, Any],
    images: Float[Array, "*b h w c"],
    *,
    method: DenseMethod = "sclip",
    proxy: Float[Array, "*b proxy_rows proxy_columns f"] | None = None,
) -> DenseClipOutput:
    """An embedding of each patch by a CLIP with a vision transformer, without training.

    Args:
      model: CLIP, with a vision transformer.
      variables: Variables of the model.
      images: `[*b, h, w, c]`, standardised, of any size.
      method: How the last block is changed:
        "clip": not at all;
        "maskclip": each patch takes its own value, `v`, with the residual and the perceptron;
        "sclip": `(softmax(q qᵀ/√d) + softmax(k kᵀ/√d)) v`, likewise;
        "clearclip": `softmax(q qᵀ/√d) v`, without residual and perceptron;
        "naclip": `softmax(k kᵀ/√d + G) v`, likewise, with a Gaussian `G` of the patches' distance;
        "proxyclip": `softmax(γ (s − β mean(s))) v`, likewise, over the positive ones, where `s` is
        the cosine between the features of another model.
      proxy: Features for "proxyclip", such as DINO's, `[*b, rows, columns, f]` of the same images
        on a grid of their own, which the result then has.

    Returns:
      Features and keys.

    Raises:
      ValueError: if the model has no vision transformer with a class token, for an unknown method,
        or where `proxy` is missing or of no use.

    Example:
      >>> from segjax import models
      >>> import jax, jax.numpy as jnp
      >>> from segjax.models import clip_vit_base_patch32
      >>> model, images = clip_vit_base_patch32(), jnp.zeros((1, 64, 96, 3))
      >>> run = lambda: models.dense_clip(model, model.init(jax.random.key(0), images), images)
      >>> jax.eval_shape(run).features.shape
      (1, 2, 3, 512)

    References:
      Zhou et al., "Extract free dense labels from CLIP", 2022 (MaskCLIP); Wang et al., "SCLIP:
      rethinking self-attention for dense vision-language inference", 2024; Lan et al., "ClearCLIP:
      decomposing CLIP representations for dense vision-language inference", 2024; Hajimiri et al.,
      "Pay attention to your neighbours: training-free open-vocabulary semantic segmentation", 2025
      (NACLIP); Lan et al., "ProxyCLIP: proxy attention improves CLIP for open-vocabulary
      segmentation", 2024.
    """
    if method not in _BLOCKS:
        raise ValueError(f"method: expected {' or '.join(_BLOCKS)}, got {method!r}")
    if (proxy is None) == (method == "proxyclip"):
        expected = "features" if method == "proxyclip" else "None"
        raise ValueError(f"proxy: expected {expected} for {method}, got {type(proxy).__name__}")

    def states(module: Clip, images: Array) -> Any:
        tower = module.image_tower
        if not isinstance(tower, ClipImageTower) or tower.embedding is None:
            raise ValueError(
                "model: expected a CLIP with a vision transformer, got one with "
                f"{type(tower).__name__}"
            )
        return tower(images)["states"][-2], tower

    x, tower = cast(tuple, model.apply(variables, images, method=states))
    params, patch = variables["params"]["image_tower"], tower.patch_size
    block = _Block(params[f"block{tower.depth - 1}"], tower)
    grid = (-(-images.shape[-3] // patch), -(-images.shape[-2] // patch))
    as_grid = lambda y, grid: y[..., 1:, :].reshape(*y.shape[:-2], *grid, y.shape[-1])
    keys = as_grid(block.joined(block.project(x)[1]), grid)
    if proxy is None:
        y = _BLOCKS[method](block, x, grid)
    else:
        y, grid = _proxyclip(block, x, grid, jnp.asarray(proxy)), (proxy.shape[-3], proxy.shape[-2])
    y = _norm(params["norm_post"], as_grid(y, grid), tower.epsilon)
    features = _dense(params["projection"], y)
    return DenseClipOutput(features.astype(accumulation_dtype(features)), keys)


@dataclasses.dataclass(frozen=True)
class _Block:
    """The parts of a transformer block, as functions."""

    params: Mapping[str, Any]
    tower: ClipImageTower

    def project(self, x: jax.Array) -> tuple[Heads, Heads, Heads]:
        """`q`, `k` and `v` of `n(x)`."""
        qkv = _dense(
            self.params["attention"]["qkv"], _norm(self.params["norm1"], x, self.tower.epsilon)
        )
        parts = jnp.split(qkv, 3, axis=-1)
        split = lambda y: y.reshape(*y.shape[:-1], self.tower.num_heads, -1)
        q, k, v = (jnp.swapaxes(split(part), -3, -2) for part in parts)
        return q, k, v

    def joined(self, y: Heads) -> jax.Array:
        """The channels of all heads, side by side."""
        y = jnp.swapaxes(y, -3, -2)
        return y.reshape(*y.shape[:-2], -1)

    def output(self, y: Heads) -> jax.Array:
        """What the attention adds: the product that follows the heads."""
        return _dense(self.params["attention"]["output"], self.joined(y))

    def perceptron(self, x: jax.Array) -> jax.Array:
        """What the perceptron adds."""
        y = _dense(self.params["fc1"], _norm(self.params["norm2"], x, self.tower.epsilon))
        return _dense(self.params["fc2"], self.tower.activation(y))

    def whole(self, x: jax.Array, y: Heads) -> jax.Array:
        """The block with `y` for the heads' results: residuals and perceptron as they are."""
        x = x + self.output(y)
        return x + self.perceptron(x)


def _clip(block: _Block, x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    q, k, v = block.project(x)
    return block.whole(x, jax.nn.softmax(_scores(q, k)) @ v)


def _maskclip(block: _Block, x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    _, _, v = block.project(x)
    return block.whole(x, v)


def _sclip(block: _Block, x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    q, k, v = block.project(x)
    return block.whole(x, (jax.nn.softmax(_scores(q, q)) + jax.nn.softmax(_scores(k, k))) @ v)


def _clearclip(block: _Block, x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    q, _, v = block.project(x)
    return block.output(jax.nn.softmax(_scores(q, q)) @ v)


def _naclip(block: _Block, x: jax.Array, grid: tuple[int, int], *, std: float = 5.0) -> jax.Array:
    _, k, v = block.project(x)
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, grid), indexing="ij"), -1).reshape(-1, 2)
    squared = jnp.sum((places[:, None] - places) ** 2, axis=-1)
    # The class token, which comes first, has no place.
    gaussian = jnp.pad(jnp.exp(-squared / (2 * std**2)), ((1, 0), (1, 0)))
    scores = _scores(k, k)
    return block.output(jax.nn.softmax(scores + gaussian.astype(scores.dtype)) @ v)


def _proxyclip(
    block: _Block,
    x: jax.Array,
    grid: tuple[int, int],
    proxy: jax.Array,
    *,
    beta: float = 1.2,
    gamma: float = 3.0,
) -> jax.Array:
    _, _, v = block.project(x)
    *lead, rows, columns, _ = proxy.shape
    v = v[..., 1:, :]
    v = resize(v.reshape(*v.shape[:-2], *grid, v.shape[-1]), (rows, columns))
    v = v.reshape(*v.shape[:-3], rows * columns, v.shape[-1])
    units = normalize(proxy.astype(accumulation_dtype(proxy)).reshape(*lead, rows * columns, -1))
    cosine = units @ jnp.swapaxes(units, -2, -1)
    scores = gamma * (cosine - beta * jnp.mean(cosine, axis=(-2, -1), keepdims=True))
    # A patch has a cosine of 1 with itself, but beta may exceed the others' share of it.
    least = jnp.finfo(scores.dtype).min
    attention = jax.nn.softmax(jnp.where(scores > 0, scores, least))
    y = block.output(attention[..., None, :, :].astype(v.dtype) @ v)
    return jnp.pad(y, [(0, 0)] * len(lead) + [(1, 0), (0, 0)])  # a class token, which is dropped


_BLOCKS: dict[str, Callable[..., jax.Array]] = {
    "clip": _clip,
    "maskclip": _maskclip,
    "sclip": _sclip,
    "clearclip": _clearclip,
    "naclip": _naclip,
    "proxyclip": _proxyclip,
}


def _scores(a: Heads, b: Heads) -> jax.Array:
    """`a bᵀ / √d`."""
    scores = (a * a.shape[-1] ** -0.5) @ jnp.swapaxes(b, -2, -1)
    return scores.astype(accumulation_dtype(scores))


def _dense(params: Mapping[str, Array], x: jax.Array) -> jax.Array:
    y = x @ jnp.asarray(params["kernel"], x.dtype)
    return y + jnp.asarray(params["bias"], x.dtype) if "bias" in params else y


def _norm(params: Mapping[str, Array], x: jax.Array, epsilon: float) -> jax.Array:
    norm = nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=x.dtype)
    return cast(jax.Array, norm.apply({"params": params}, x))
