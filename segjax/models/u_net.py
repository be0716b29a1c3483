"""The U-Net: an encoder, a decoder, and skips between their levels of equal size."""

from fractions import Fraction
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.layers import Dtype, NormKind
from segjax.models.outputs import SemanticOutput
from segjax.ops.receptive import ConvSpec, Layer
from segjax.typing import Array


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution, norm, ReLU."""

    features: int
    dimensions: int
    norm: NormKind
    train: bool
    axis_name: str | None
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = layers.Conv(
                self.features,
                dimensions=self.dimensions,
                use_bias=self.norm == "none",
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )(x)
            x = layers.norm(
                self.norm,
                train=self.train,
                dimensions=self.dimensions,
                axis_name=self.axis_name,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )(x)
            x = nn.relu(x)
        return x


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. with padded convolutions, for images and for volumes.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` (`[*b, d, h, w, c]` with
    `dimensions=3`) of any size and returns a `SemanticOutput` with logits of that size.

    Attributes:
      num_classes: of the logits.
      widths: channels of each level; each level after the first halves the resolution.
      norm: "batch", "group" or "none".
      upsampling: "transposed" (learned, kernel 2, stride 2) or "bilinear" (and a 1x1 convolution).
      dimensions: spatial axes, 2 or 3.
      patch_size: side of the blocks of pixels that the first level takes as one position, and that
        the logits are dealt out to; 2 costs a quarter, and keeps the pixels apart all the same.
      deep_supervision: whether training gives auxiliary logits from the coarser decoder levels.
      remat: recompute each level's activations in the backward pass instead of keeping them.
      axis_name: the mapped axis over which a batch is spread under `pmap`, for batch norm.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    norm: NormKind = "batch"
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    dimensions: int = 2
    patch_size: int = 1
    deep_supervision: bool = False
    remat: bool = False
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "..."], train: bool = False) -> SemanticOutput:
        d, patch = self.dimensions, self.patch_size
        if images.ndim < d + 1:
            raise ValueError(f"images: at least {d + 1} axes were due, got shape {images.shape}")
        size = images.shape[-1 - d : -1]
        multiple = patch * 2 ** (len(self.widths) - 1)
        x = layers.pad_to_multiple(jnp.asarray(images, self.dtype), multiple, d)
        x = layers.space_to_depth(x, patch, d)

        skips = []
        for level, width in enumerate(self.widths):
            if level > 0:
                x = layers.max_pool_2x(x, d)
            x = self._convs(width, f"encoder_{level}", train)(x)
            skips.append(x)

        auxiliary = []
        for level in reversed(range(len(self.widths) - 1)):
            x = self._upsample(x, self.widths[level], f"up_{level}")
            x = jnp.concatenate([skips[level], x], axis=-1)
            x = self._convs(self.widths[level], f"decoder_{level}", train)(x)
            if self.deep_supervision and train and level > 0:
                coarse = [-(-s // (patch * 2**level)) for s in size]
                auxiliary.append(self._logits(x, coarse, f"auxiliary_{level}"))
        logits = self._logits(x, size, "logits", patch=patch)
        return SemanticOutput(logits, tuple(reversed(auxiliary)))

    @nn.nowrap
    def layer_specs(self) -> list[Layer]:
        """The layers along one axis, with the skips as branches, for `segjax.ops.receptive_field`.

        A ValueError with norm "group": its statistics see the whole picture.
        """
        if self.norm == "group":
            raise ValueError("norm 'group' makes every output depend on the whole picture")
        convs: list[Layer] = [ConvSpec(3, padding=1)] * 2
        half = Fraction(1, 2)
        transposed, linear = ConvSpec(1, stride=half), ConvSpec(2, stride=half, padding=half)
        up = transposed if self.upsampling == "transposed" else linear
        specs = convs
        for _ in self.widths[1:]:
            deeper = [ConvSpec(2, stride=2), *specs, up]
            specs = [*convs, ([], deeper), *convs]
        patch = ConvSpec(self.patch_size, stride=self.patch_size)
        return [patch, *specs, ConvSpec(1, stride=Fraction(1, self.patch_size))]

    def _convs(self, width, name, train):
        block = nn.remat(DoubleConv) if self.remat else DoubleConv
        return block(
            width,
            dimensions=self.dimensions,
            norm=self.norm,
            train=train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    def _upsample(self, x, width, name):
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype, "name": name}
        if self.upsampling == "transposed":
            return layers.UpConv2x(width, self.dimensions, **dtypes)(x)
        if self.upsampling != "bilinear":
            raise ValueError(
                f"upsampling: 'transposed' or 'bilinear' was due, got {self.upsampling!r}"
            )
        # The 1x1 convolution commutes with the interpolation, and is 2^d times cheaper before it.
        return layers.upsample_linear_2x(layers.Dense(width, **dtypes)(x), self.dimensions)

    def _logits(self, x: jax.Array, size, name, patch=1):
        """1x1 convolution in float32 at least, dealt out to blocks, without the padding."""
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        features = self.num_classes * patch**self.dimensions
        logits = layers.Dense(features, dtype=dtype, param_dtype=self.param_dtype, name=name)(x)
        logits = layers.depth_to_space(logits, patch, self.dimensions)
        return logits[(..., *[slice(s) for s in size], slice(None))]


def unet(num_classes: int, **options) -> UNet:
    """The U-Net at the paper's widths, 64 to 1024, with batch norm: 31 million parameters.

    Args:
      num_classes: of the logits.
      **options: attributes of `UNet`.

    Returns:
      The module.

    Example:
      >>> model = unet(5, widths=(4, 8))
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 9, 7, 3)))
      >>> model.apply(variables, jnp.zeros((1, 9, 7, 3))).logits.shape
      (1, 9, 7, 5)

    Source: Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015, figure 1; batch norm as has become
    usual. Volumes: Çiçek et al., "3D U-Net", MICCAI 2016.
    """
    return UNet(num_classes, **options)


def unet_small(num_classes: int, **options) -> UNet:
    """A U-Net of widths 32 to 512: 7.8 million parameters.

    Args and Returns as of `unet`.
    """
    return UNet(num_classes, **{"widths": (32, 64, 128, 256, 512)} | options)


def unet_tiny(num_classes: int, **options) -> UNet:
    """A U-Net of widths 16 to 256: 1.9 million parameters.

    Args and Returns as of `unet`.
    """
    return UNet(num_classes, **{"widths": (16, 32, 64, 128, 256)} | options)


def unet_patch2(num_classes: int, **options) -> UNet:
    """A U-Net on patches of 2x2 pixels, widths 32 to 256: 1.9 million parameters, quick on a CPU.

    Args and Returns as of `unet`.
    """
    settings: dict[str, Any] = {"widths": (32, 64, 128, 256), "patch_size": 2}
    return UNet(num_classes, **settings | options)
