"""The base class of all models and backbones."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from segjax.models import layers
from segjax.models.layers import Dtype, Layer


class ImageModel(nn.Module, kw_only=True):
    """A module that takes images, with the options that all models and backbones share.

    Attributes:
      remat: Whether to recompute the activations of blocks in the backward pass instead of storing
        them: slower, with less memory.
      axis_name: Name of the mapped axis over which `pmap` spreads the batch; batch norms average
        their statistics over it.
      dtype: Dtype of the computation; logits and boxes are at least float32.
      param_dtype: Dtype of the parameters.
    """

    remat: bool = False
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @property
    def dtypes(self) -> dict[str, Any]:
        """The options of a layer, as keyword arguments."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @property
    def shared_options(self) -> dict[str, Any]:
        """The options of a backbone, as keyword arguments."""
        return {"remat": self.remat, "axis_name": self.axis_name, **self.dtypes}

    @nn.nowrap
    def batch_norm(self, train: bool, **options: Any) -> Layer:
        """The constructor of batch norms."""
        options |= {"axis_name": self.axis_name, **self.dtypes}
        return functools.partial(layers.BatchNorm, train, **options)

    @property
    def output_dtype(self) -> jnp.dtype:
        """The dtype of logits and boxes."""
        return jnp.promote_types(self.dtype, jnp.float32)
