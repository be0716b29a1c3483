"""Modules of convolutions and matrix products."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models.layers.convolution import convolve
from segjax.models.layers.forms import project
from segjax.models.layers.resampling import depth_to_space

Dtype = Any

# Variance 2 / fan-in, as ReLU networks are started.
he_normal = nn.initializers.he_normal()


class Conv(nn.Module):
    """A convolution with torch's borders: as many zeros before as behind.

    Attributes:
      features: output channels.
      kernel_size: along every spatial axis.
      stride: likewise.
      dilation: likewise.
      padding: zeros on each side; None for `dilation · (kernel_size − 1) / 2`, which keeps the size
        of an odd kernel's input.
      groups: of channels that do not see one another; as many as there are channels for a depthwise
        convolution.
      use_bias: whether to add a bias.
      dimensions: number of spatial axes.
      kernel_init: of the kernel, `[*kernel, in / groups, out]`.
      bias_init: of the bias.
      dtype: of the computation.
      param_dtype: of the parameters.
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
    """A matrix product over the last axis, and a bias.

    Attributes:
      features: output channels.
      use_bias: whether to add a bias.
      kernel_init: of the kernel, `[in, out]`.
      bias_init: of the bias.
      dtype: of the computation.
      param_dtype: of the parameters.
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
        blocks = Dense(
            self.features * 2**self.dimensions,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(x)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        return depth_to_space(blocks, 2, self.dimensions) + bias.astype(blocks.dtype)
