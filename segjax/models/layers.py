"""Layers that the models share: each in the form that is fast forward and backward."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

NormKind = Literal["batch", "group", "none"]
Dtype = Any


def norm(
    kind: NormKind,
    *,
    train: bool,
    dimensions: int = 2,
    axis_name: str | None = None,
    dtype: Dtype = None,
    param_dtype: Dtype = jnp.float32,
    name: str | None = None,
) -> Callable[[jax.Array], jax.Array]:
    """A normalisation layer by its name.

    Args:
      kind: `"batch"`: statistics of the whole batch, over the devices of `axis_name` too;
        `"group"`: of 8 groups of channels (fewer where 8 does not divide them), example by
        example; `"none"`: the identity.
      train: whether batch norm takes the batch's statistics, or its running ones.
      dimensions: number of spatial axes.
      axis_name: the mapped axis (`pmap`) over which the batch is spread, if any.
      dtype: of the computation; statistics are float32.
      param_dtype: of the parameters.
      name: of the module.

    Returns:
      A layer: `[*b, *spatial, c]` to the same shape.

    Raises:
      ValueError: for another kind.

    Source: Ioffe and Szegedy 2015 (batch norm), Wu and He 2018 (group norm).
    """
    options = {"dtype": dtype, "param_dtype": param_dtype, "name": name}
    if kind == "batch":
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=axis_name,
            **options,
        )
    if kind == "group":
        return _GroupNorm(dimensions, **options)
    if kind == "none":
        return lambda x: x
    raise ValueError(f"norm: 'batch', 'group' or 'none' was due, got {kind!r}")


class _GroupNorm(nn.Module):
    dimensions: int
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        return nn.GroupNorm(
            num_groups=max(g for g in range(1, 9) if x.shape[-1] % g == 0),
            reduction_axes=tuple(range(-1 - self.dimensions, 0)),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(x)


class UpConv2x(nn.Module):
    """The transposed convolution with kernel 2 and stride 2 along every spatial axis.

    As kernel and stride are equal, no two outputs share an input: it is a matrix product that gives
    each position its 2^d outputs, which are then dealt out in space. Its weight gradient is tens of
    times faster on a CPU than `nn.ConvTranspose`'s.

    Attributes:
      features: output channels.
      dimensions: number of spatial axes, d.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    features: int
    dimensions: int = 2
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
        blocks = nn.Dense(
            self.features * 2**self.dimensions,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(x)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        return depth_to_space(blocks, 2, self.dimensions) + bias.astype(blocks.dtype)


def depth_to_space(
    x: Float[jax.Array, "..."], factor: int, dimensions: int
) -> Float[jax.Array, "..."]:
    """Deals `[*b, *spatial, f^d * c]` out to `[*b, *(f * spatial), c]`, the last axis fastest."""
    lead, spatial = x.shape[: -1 - dimensions], x.shape[-1 - dimensions : -1]
    x = x.reshape(*lead, *spatial, *[factor] * dimensions, x.shape[-1] // factor**dimensions)
    first = len(lead)
    pairs = [axis for d in range(dimensions) for axis in (first + d, first + dimensions + d)]
    x = x.transpose(*range(first), *pairs, x.ndim - 1)
    return x.reshape(*lead, *[factor * s for s in spatial], x.shape[-1])


def space_to_depth(
    x: Float[jax.Array, "..."], factor: int, dimensions: int
) -> Float[jax.Array, "..."]:
    """The inverse of `depth_to_space`; the sizes of the spatial axes must divide by `factor`."""
    lead, spatial = x.shape[: -1 - dimensions], x.shape[-1 - dimensions : -1]
    blocks = [size for s in spatial for size in (s // factor, factor)]
    x = x.reshape(*lead, *blocks, x.shape[-1])
    first = len(lead)
    outer, inner = (range(first + i, first + 2 * dimensions, 2) for i in (0, 1))
    x = x.transpose(*range(first), *outer, *inner, x.ndim - 1)
    return x.reshape(*lead, *[s // factor for s in spatial], factor**dimensions * x.shape[-1])


def max_pool_2x(x: Float[jax.Array, "..."], dimensions: int) -> Float[jax.Array, "..."]:
    """Maximum over blocks of 2 along each of the last `dimensions` spatial axes (all even).

    The gradient of pairwise maxima is a select, where `reduce_window`'s is a select-and-scatter,
    many times slower on a CPU.
    """
    for axis in range(x.ndim - 1 - dimensions, x.ndim - 1):
        even = jax.lax.slice_in_dim(x, 0, None, stride=2, axis=axis)
        odd = jax.lax.slice_in_dim(x, 1, None, stride=2, axis=axis)
        x = jnp.maximum(even, odd)
    return x


def upsample_linear_2x(x: Float[jax.Array, "..."], dimensions: int) -> Float[jax.Array, "..."]:
    """(Bi-, tri-)linear upsampling by 2 of the last `dimensions` spatial axes, corners not aligned.

    The outputs lie a quarter of a sample before and after each input: two phases of shifted sums,
    whose transpose is again shifted sums. Outside the border its nearest sample goes on.
    """
    for axis in range(x.ndim - 1 - dimensions, x.ndim - 1):
        size = x.shape[axis]
        first, last = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, size - 1))
        before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
        phases = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = phases.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def pad_to_multiple(
    x: Float[jax.Array, "..."], multiple: int, dimensions: int
) -> Float[jax.Array, "..."]:
    """Repeats the border at the far end of each spatial axis up to a multiple of `multiple`."""
    spatial = x.shape[-1 - dimensions : -1]
    lead = [(0, 0)] * (x.ndim - 1 - dimensions)
    return jnp.pad(x, [*lead, *[(0, -s % multiple) for s in spatial], (0, 0)], mode="edge")
