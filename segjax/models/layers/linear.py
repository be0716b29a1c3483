"""Convolutions and dense layers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models.layers.convolution import convolve
from segjax.models.layers.forms import project
from segjax.models.layers.resampling import depth_to_space

Dtype = Any

# Variance 2 / fan-in, for ReLU networks.
he_normal = nn.initializers.he_normal()


class Conv(nn.Module):
    """A convolution with torch's padding: the same number of zeros on both sides.

    Attributes:
      features: Output channels.
      kernel_size: Kernel size along every spatial axis.
      stride: Stride along every spatial axis.
      dilation: Dilation along every spatial axis.
      padding: Number of zeros on each side; None for `dilation · (kernel_size − 1) / 2`, with which
        an odd kernel keeps the size.
      groups: Number of groups of channels that are convolved separately; as many as channels for a
        depthwise convolution.
      use_bias: Whether to add a bias.
      dimensions: Number of spatial axes.
      kernel_init: Initializer of the kernel, `[*kernel, in / groups, out]`.
      bias_init: Initializer of the bias.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = True
    dimensions: int = 2
    kernel_init: nn.initializers.Initializer = he_normal
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
        shape = (self.kernel_size,) * self.dimensions
        shape += (x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        padding = self.padding
        if padding is None:
            padding = self.dilation * (self.kernel_size - 1) // 2
        options = {"dilation": self.dilation, "padding": padding, "groups": self.groups}
        y = convolve(x, kernel, stride=self.stride, **options)
        return y if bias is None else y + bias


class Dense(nn.Module):
    """A dense layer over the last axis.

    Attributes:
      features: Output channels.
      use_bias: Whether to add a bias.
      kernel_init: Initializer of the kernel, `[in, out]`.
      bias_init: Initializer of the bias.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b c"]) -> Float[jax.Array, "*b o"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = project(x, kernel)
        return y if bias is None else y + bias


class UpConv2x(nn.Module):
    """A transposed convolution with kernel 2 and stride 2 along every spatial axis.

    As kernel and stride are equal, it is a dense layer with 2^d outputs for each position, which
    are then rearranged in space. On a CPU its weight gradient is tens of times faster than that of
    `nn.ConvTranspose`.

    Attributes:
      features: Output channels.
      dimensions: Number of spatial axes, d.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int
    dimensions: int = 2
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
        blocks = Dense(
            self.features * 2**self.dimensions,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(x)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        return depth_to_space(blocks, 2, self.dimensions) + bias.astype(blocks.dtype)
