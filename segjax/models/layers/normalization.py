"""Normalization layers, with running statistics as in torch."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array

NormKind = Literal["batch", "group", "none"]
Dtype = Any


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last: `γ (x − μ) / √(σ² + ε) + β`.

    In training `μ` and `σ²` are those of the whole batch, over all devices of `axis_name`. The
    running statistics are moving averages of `μ` and of the unbiased variance `σ² n / (n − 1)`, as
    in torch. `where` broadcasts to `[*b]` and is False for values that are not counted. Training
    with a single value per channel, over all devices, raises a ValueError; if `where` leaves fewer
    than two, the running statistics are kept.

    Attributes:
      train: Whether to use the statistics of the batch or the running ones.
      momentum: Weight of a new batch in the running statistics.
      epsilon: ε, added to the variance.
      axis_name: Name of the mapped axis over which `pmap` spreads the batch, if any.
      dtype: Dtype of the result; statistics are at least float32.
      param_dtype: Dtype of scale and bias.
    """

    train: bool = False
    momentum: float = 0.1
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "*b c"], where: Bool[jax.Array, "..."] | None = None
    ) -> Float[jax.Array, "*b c"]:
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, self.param_dtype)
        stats_dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, stats_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, stats_dtype)
        mean, var = running_mean.value, running_var.value
        if self.train:
            mean, var, count = self._batch_statistics(x, where)
            if not self.is_initializing():
                self._check_values(x.shape)
                step = self.momentum * (count > 1)
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                running_mean.value = (1 - step) * running_mean.value + step * mean
                running_var.value = (1 - step) * running_var.value + step * unbiased
        factor = scale.astype(var.dtype) * jax.lax.rsqrt(var + self.epsilon)
        shift = bias.astype(var.dtype) - mean * factor
        return (x * factor + shift).astype(self.dtype or x.dtype)

    def _check_values(self, shape: tuple[int, ...]) -> None:
        values = math.prod(shape[:-1])
        if self.axis_name is not None:
            values *= jax.lax.axis_size(self.axis_name)
        if values < 2:
            raise ValueError(
                f"{'/'.join(self.path)}: expected more than 1 value per channel when training, got "
                f"an input of shape {shape}; take a larger batch (or fewer parts to accumulate), "
                "larger images, or a model without batch norm here"
            )

    def _batch_statistics(
        self, x: jax.Array, where: Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mean, variance and number of values of each channel."""
        x = x.astype(accumulation_dtype(x))
        if where is None:
            mean, var = _moments(x)
            count = jnp.asarray(x.size // x.shape[-1], x.dtype)
        else:
            mean, var, count = _masked_moments(x, broadcast_where(where, x.shape[:-1]))
        if self.axis_name is None or self.is_initializing():
            return mean, var, count
        own_count, count = count, jax.lax.psum(count, self.axis_name)
        share = safe_divide(own_count, count)
        own_mean, mean = mean, jax.lax.psum(share * mean, self.axis_name)
        var = jax.lax.psum(share * (var + jnp.square(own_mean - mean)), self.axis_name)
        return mean, var, count


class FrozenBatchNorm(nn.Module):
    """Batch norm with frozen parameters and statistics: `γ (x − μ) / √(σ² + ε) + β`.

    All four are in the collection "batch_stats", so that neither optimizers nor batches change
    them.

    Attributes:
      epsilon: ε, added to the variance.
      dtype: Dtype of the result; the statistics are at least float32.
      param_dtype: Dtype of parameters and statistics.
    """

    epsilon: float = 1e-5
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b c"]) -> Float[jax.Array, "*b c"]:
        dtype = jnp.promote_types(self.param_dtype, jnp.float32)

        def frozen(name, start):
            return self.variable("batch_stats", name, start, x.shape[-1:], dtype).value

        mean, var = frozen("mean", jnp.zeros), frozen("var", jnp.ones)
        factor = frozen("scale", jnp.ones) * jax.lax.rsqrt(var + self.epsilon)
        shift = frozen("bias", jnp.zeros) - mean * factor
        return (x * factor + shift).astype(self.dtype or x.dtype)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over all axes but the last, in one pass: `σ² = E(x − a)² − (E x − a)²`.

    This holds for any constant `a`. The first pixel is a good one: it is a few σ from the mean, so
    that little cancels.
    """
    axes = tuple(range(x.ndim - 1))
    shift = jax.lax.stop_gradient(x[(0,) * len(axes)])
    mean = jnp.mean(x - shift, axes)
    var = jnp.mean(jnp.square(x - shift), axes) - jnp.square(mean)
    return mean + shift, jnp.where(var < 0, 0, var)


def _masked_moments(x: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, variance and number of the values where `where` is True, over all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    where = where[..., None]
    count = jnp.sum(where, dtype=x.dtype)
    places = jnp.maximum(count, 1)
    mean = jnp.sum(jnp.where(where, x, 0), axes) / places
    var = jnp.sum(jnp.square(jnp.where(where, x - mean, 0)), axes) / places
    return mean, var, count


class GroupNorm(nn.Module):
    """Group norm with 8 groups of channels (fewer if 8 does not divide them).

    Attributes:
      dimensions: Number of spatial axes.
      dtype: Dtype of the computation; statistics are at least float32.
      param_dtype: Dtype of scale and bias.
    """

    dimensions: int = 2
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
        spatial, channels = x.shape[-1 - self.dimensions : -1], x.shape[-1]
        if math.prod(spatial) * channels == _groups(channels, 8):
            raise ValueError(
                f"{'/'.join(self.path)}: expected more than 1 value per group, got an input of "
                f"shape {x.shape}; take larger images, or more channels"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return group_norm(x.shape[-1], dimensions=self.dimensions, **dtypes)(x)


def group_norm(
    channels: int,
    *,
    groups: int = 8,
    epsilon: float = 1e-6,
    dimensions: int = 2,
    name: str | None = None,
    dtype: Dtype = None,
    param_dtype: Dtype = jnp.float32,
) -> nn.GroupNorm:
    """Group norm: `γ (x − μ) / √(σ² + ε) + β`, with μ and σ of each group in each example.

    Args:
      channels: Number of channels.
      groups: Number of groups; if it does not divide the channels, the greatest smaller number that
        does.
      epsilon: ε, added to the variance; 1e-5 in torch.
      dimensions: Number of spatial axes.
      name: Name of the module.
      dtype: Dtype of the computation; statistics are at least float32.
      param_dtype: Dtype of scale and bias.

    Returns:
      The layer, `[*b, *spatial, c]` to the same shape.

    References:
      Wu and He, "Group normalization", 2018.
    """
    return nn.GroupNorm(
        num_groups=_groups(channels, groups),
        epsilon=epsilon,
        use_fast_variance=False,
        reduction_axes=tuple(range(-1 - dimensions, 0)),
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
    )


def _groups(channels: int, most: int) -> int:
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


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
    """A normalization layer by its name.

    Args:
      kind: `"batch"` for statistics of the whole batch, over all devices; `"group"` for those of 8
        groups of channels (fewer if 8 does not divide them) of each example; `"none"` for the
        identity.
      train: Whether batch norm uses the statistics of the batch or the running ones.
      dimensions: Number of spatial axes.
      axis_name: Name of the mapped axis over which `pmap` spreads the batch, if any.
      dtype: Dtype of the computation; statistics are at least float32.
      param_dtype: Dtype of the parameters.
      name: Name of the module.

    Returns:
      A layer: `[*b, *spatial, c]` to the same shape.

    Raises:
      ValueError: If `kind` is none of these.

    References:
      Ioffe and Szegedy 2015 (batch norm), Wu and He 2018 (group norm).
    """
    options = {"dtype": dtype, "param_dtype": param_dtype, "name": name}
    if kind == "batch":
        return BatchNorm(train, axis_name=axis_name, **options)
    if kind == "group":
        return GroupNorm(dimensions, **options)
    if kind == "none":
        return lambda x: x
    raise ValueError(f"norm: expected 'batch', 'group' or 'none', got {kind!r}")
