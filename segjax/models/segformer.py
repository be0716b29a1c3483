"""SegFormer: a Mix Transformer, and a decoder of dense layers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.backbones import mit_b0, mit_b1, mit_b2, mit_b3, mit_b4, mit_b5
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype
from segjax.models.outputs import SemanticOutput
from segjax.typing import Array


class DenseFusion(nn.Module):
    """Fuses features of several scales: projects, upsamples, concatenates and mixes them.

    `Σ_s U_s(x_s P_s + p_s) F_s`, with projections `P` and `p`, bilinear upsampling `U` to the first
    scale, and the mixing matrix `F` in blocks. Since dense layers and upsampling commute, it is
    computed as `Σ_s U_s(x_s (P_s F_s) + p_s F_s)`, which is several times cheaper.

    Attributes:
      features: Channels of each projection, and output channels.
      dtype: Dtype of the computation.
      param_dtype: Dtype of the parameters.
    """

    features: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, scales: list[Float[jax.Array, "*b _ _ _"]]) -> Float[jax.Array, "*b h w f"]:
        shape = (len(scales) * self.features, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, self.param_dtype)
        # The original concatenates the scales from the last to the first.
        mixing = kernel.reshape(len(scales), self.features, self.features)[::-1]
        height, width = scales[0].shape[-3:-1]
        mixed = []
        for i, x in enumerate(scales):
            projection = Affine(x.shape[-1], self.features, self.param_dtype, name=f"projection{i}")
            kernel, bias = (array @ mixing[i] for array in projection())
            x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
            mixed.append(layers.upsample(layers.project(x, kernel) + bias, (height, width)))
        return functools.reduce(jnp.add, mixed)


class Affine(nn.Module):
    """The parameters of a dense layer, `[in, out]` and `[out]`."""

    inputs: int
    features: int
    param_dtype: Dtype

    @nn.compact
    def __call__(self):
        small = nn.initializers.truncated_normal(0.02)
        kernel = self.param("kernel", small, (self.inputs, self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        return kernel, bias


class SegFormer(ImageModel):
    """SegFormer: a Mix Transformer, and a decoder of dense layers on its four scales.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` with sides of at least 29 pixels
    and returns a `SemanticOutput` with logits of a quarter of the images' size, rounded up.
    Training needs a `dropout` key.

    Attributes:
      num_classes: Number of classes.
      backbone: Constructor of a module with the features `stage1` to `stage4`.
      features: Channels of the decoder.
      drop_path: Stochastic depth of the backbone: the probability of dropping a branch of the last
        block in training.
      return_attention: Whether to return the attention maps of every block.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module]
    features: int = 768
    drop_path: float = 0.1
    return_attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "*b h w c"], train: bool = False) -> SemanticOutput:
        features = self.backbone(
            drop_path=self.drop_path,
            return_attention=self.return_attention,
            name="backbone",
            **self.shared_options,
        )(images, train)
        scales = [features[f"stage{i}"] for i in range(1, 5)]
        x = DenseFusion(self.features, name="fusion", **self.dtypes)(scales)
        x = self.batch_norm(train)(name="norm")(x)
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        logits = layers.Conv(self.num_classes, 1, name="logits", **self.dtypes)(x)
        logits = logits.astype(self.output_dtype)
        logits = layers.repeat_border(logits)
        return SemanticOutput(logits, attention=features.get("attention", ()))


def segformer_b0(num_classes: int, **options: Any) -> SegFormer:
    """SegFormer on MiT-B0: 3.8 million parameters with 150 classes.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `SegFormer`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.segformer_b0(150)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.logits.shape
      (1, 17, 16, 150)

    References:
      Xie et al., "SegFormer: simple and efficient design for semantic segmentation with
      transformers", 2021, section 3; the norms' ε as in Hugging Face's model.
    """
    options = {"features": 256, **options}
    return SegFormer(num_classes, mit_b0, **options)


def segformer_b1(num_classes: int, **options: Any) -> SegFormer:
    """SegFormer on MiT-B1: 13.7 million parameters with 150 classes.

    Args and Returns as in `segformer_b0`.
    """
    options = {"features": 256, **options}
    return SegFormer(num_classes, mit_b1, **options)


def segformer_b2(num_classes: int, **options: Any) -> SegFormer:
    """SegFormer on MiT-B2: 27.5 million parameters with 150 classes.

    Args and Returns as in `segformer_b0`.
    """
    return SegFormer(num_classes, mit_b2, **options)


def segformer_b3(num_classes: int, **options: Any) -> SegFormer:
    """SegFormer on MiT-B3: 47.3 million parameters with 150 classes.

    Args and Returns as in `segformer_b0`.
    """
    return SegFormer(num_classes, mit_b3, **options)


def segformer_b4(num_classes: int, **options: Any) -> SegFormer:
    """SegFormer on MiT-B4: 64.1 million parameters with 150 classes.

    Args and Returns as in `segformer_b0`.
    """
    return SegFormer(num_classes, mit_b4, **options)


def segformer_b5(num_classes: int, **options: Any) -> SegFormer:
    """SegFormer on MiT-B5: 84.7 million parameters with 150 classes.

    Args and Returns as in `segformer_b0`.
    """
    return SegFormer(num_classes, mit_b5, **options)
