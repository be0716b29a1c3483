"""The U-Net: an encoder, a decoder, and skips between their levels of equal size."""

from fractions import Fraction
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax.models import layers
from segjax.models.image_model import ImageModel
from segjax.models.layers import Dtype, NormKind
from segjax.models.outputs import SemanticOutput
from segjax.ops.receptive import ConvSpec, Layer
from segjax.typing import Array


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution, norm, ReLU."""

    features: tuple[int, int]
    dimensions: int
    norm: NormKind
    train: bool
    axis_name: str | None
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x):
        for features in self.features:
            x = layers.Conv(
                features,
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


class UNet(ImageModel):
    """The U-Net of Ronneberger et al. with padded convolutions, for images and for volumes.

    `apply(variables, images, train=False)` takes `[*b, h, w, c]` (`[*b, d, h, w, c]` with
    `dimensions=3`) of any size and returns a `SemanticOutput` with logits of that size. Pooling
    drops the last of an odd number of pixels; upsampled features are padded with zeros there.

    Attributes:
      num_classes: Number of classes.
      widths: Channels of each level; each level after the first halves the resolution.
      norm: "batch", "group" or "none".
      upsampling: "transposed" for a transposed convolution (kernel 2, stride 2), or "bilinear"
        (corners aligned), with which each level outputs the channels of the level above.
      dimensions: Number of spatial axes, 2 or 3.
      patch_size: Side of the blocks of pixels that become the channels of one position before the
        first level (space to depth), and again pixels after the last; 2 costs a quarter as much.
      refinement: With a `patch_size` above 1, the number of channels at full resolution: the
        features there are added to a 3x3 convolution of the image, and another 3x3 convolution
        predicts the logits, so that borders follow pixels instead of blocks. 0 predicts the logits
        from the blocks.
      deep_supervision: Whether to return auxiliary logits of the coarser decoder levels in
        training.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    norm: NormKind = "batch"
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    dimensions: int = 2
    patch_size: int = 1
    refinement: int = 0
    deep_supervision: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "..."], train: bool = False) -> SemanticOutput:
        d, patch = self.dimensions, self.patch_size
        if images.ndim < d + 1:
            raise ValueError(f"images: expected at least {d + 1} axes, got shape {images.shape}")
        size = images.shape[-1 - d : -1]
        pixels = layers.pad_to_multiple(jnp.asarray(images, self.dtype), patch, d)
        x = layers.space_to_depth(pixels, patch, d)

        # Output channels of each level.
        outputs = self.widths
        if self.upsampling == "bilinear":
            outputs = (self.widths[0], *self.widths[:-1])
        upper = self.widths[:-1]
        skips = []
        for level, width in enumerate(upper):
            skips.append(self._convs((width, width), f"encoder_{level}", train)(x))
            x = _halve(skips[-1], d)
        x = self._convs((outputs[-1], outputs[-1]), f"encoder_{len(upper)}", train)(x)

        auxiliary = []
        for level, width in reversed(list(enumerate(upper))):
            x = _fit(self._upsample(x, width, f"up_{level}"), skips[level].shape)
            x = jnp.concatenate([skips[level], x], axis=-1)
            x = self._convs((width, outputs[level]), f"decoder_{level}", train)(x)
            if self.deep_supervision and train and level > 0:
                auxiliary.append(self._logits(x, f"auxiliary_{level}"))
        if self.refinement:
            logits = self._refined(x, pixels)
        else:
            logits = self._logits(x, "logits", patch=patch)
        logits = logits[(..., *[slice(s) for s in size], slice(None))]
        return SemanticOutput(logits, tuple(reversed(auxiliary)))

    @nn.nowrap
    def layer_specs(self) -> list[Layer]:
        """The layers along one axis, with the skips as branches, for `segjax.ops.receptive_field`.

        Raises:
          ValueError: If `norm` is "group", whose statistics are over the whole image.
        """
        if self.norm == "group":
            raise ValueError(
                "norm: expected 'batch' or 'none', got 'group': with it every output depends on "
                "the whole image"
            )
        convs: list[Layer] = [ConvSpec(3, padding=1)] * 2
        half = Fraction(1, 2)
        transposed, linear = ConvSpec(1, stride=half), ConvSpec(2, stride=half, padding=half)
        up = transposed if self.upsampling == "transposed" else linear
        specs = convs
        for _ in self.widths[1:]:
            deeper = [ConvSpec(2, stride=2), *specs, up]
            specs = [*convs, ([], deeper), *convs]
        patch = ConvSpec(self.patch_size, stride=self.patch_size)
        specs = [patch, *specs, ConvSpec(1, stride=Fraction(1, self.patch_size))]
        conv = ConvSpec(3, padding=1)
        return [([conv], specs), conv] if self.refinement else specs

    def _convs(self, features, name, train):
        block = nn.remat(DoubleConv) if self.remat else DoubleConv
        return block(
            features,
            dimensions=self.dimensions,
            norm=self.norm,
            train=train,
            axis_name=self.axis_name,
            **self.dtypes,
            name=name,
        )

    def _upsample(self, x, width, name):
        if self.upsampling == "bilinear":
            return layers.upsample_linear_2x(x, self.dimensions)
        if self.upsampling != "transposed":
            raise ValueError(
                f"upsampling: expected 'transposed' or 'bilinear', got {self.upsampling!r}"
            )
        return layers.UpConv2x(width, self.dimensions, name=name, **self.dtypes)(x)

    def _logits(self, x: jax.Array, name: str, patch: int = 1) -> jax.Array:
        """Logits in at least float32, with the channels of each patch rearranged to pixels."""
        dtype = self.output_dtype
        features = self.num_classes * patch**self.dimensions
        x = layers.Dense(features, dtype=dtype, param_dtype=self.param_dtype, name=name)(x)
        return layers.depth_to_space(x, patch, self.dimensions)

    def _refined(self, x: jax.Array, pixels: jax.Array) -> jax.Array:
        """Logits in at least float32, from features of patches and the pixels in them."""
        d = self.dimensions
        features = self.refinement * self.patch_size**d
        x = layers.Dense(features, name="to_pixels", **self.dtypes)(x)
        x = layers.depth_to_space(x, self.patch_size, d)
        x += layers.Conv(
            self.refinement, dimensions=d, use_bias=False, name="from_pixels", **self.dtypes
        )(pixels)
        options = self.dtypes | {"dtype": self.output_dtype}
        return layers.Conv(self.num_classes, dimensions=d, name="logits", **options)(nn.relu(x))


def _halve(x: jax.Array, dimensions: int) -> jax.Array:
    """Max pooling by 2 that drops the last of an odd number of pixels; a single pixel stays."""
    lead = x.ndim - 1 - dimensions
    spatial = x.shape[lead:-1]
    x = jnp.pad(x, [(0, 0)] * lead + [(0, int(s == 1)) for s in spatial] + [(0, 0)], mode="edge")
    even = [slice(max(s, 2) // 2 * 2) for s in spatial]
    return layers.max_pool_2x(x[(..., *even, slice(None))], dimensions)


def _fit(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Pads each axis with zeros at its end, or crops it, to the size in `shape`."""
    zero = jnp.zeros((), x.dtype)
    sizes = [*shape[:-1], x.shape[-1]]
    return jax.lax.pad(x, zero, [(0, size - s, 0) for s, size in zip(x.shape, sizes, strict=True)])


def unet(num_classes: int, **options: Any) -> UNet:
    """The U-Net at the paper's widths, 64 to 1024, with batch norm: 31 million parameters.

    Args:
      num_classes: Number of classes.
      **options: Attributes of `UNet`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.unet(5, widths=(4, 8))
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 9, 7, 3)))
      >>> model.apply(variables, jnp.zeros((1, 9, 7, 3))).logits.shape
      (1, 9, 7, 5)

    References:
      Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015, figure 1; batch norm and borders as
      in milesial's Pytorch-UNet. Volumes: Çiçek et al., "3D U-Net", MICCAI 2016.
    """
    return UNet(num_classes, **options)


def unet_small(num_classes: int, **options: Any) -> UNet:
    """A U-Net of widths 32 to 512: 7.8 million parameters.

    Args and Returns as in `unet`.
    """
    return UNet(num_classes, **{"widths": (32, 64, 128, 256, 512)} | options)


def unet_tiny(num_classes: int, **options: Any) -> UNet:
    """A U-Net of widths 16 to 256: 1.9 million parameters.

    Args and Returns as in `unet`.
    """
    return UNet(num_classes, **{"widths": (16, 32, 64, 128, 256)} | options)


def unet_patch2(num_classes: int, **options: Any) -> UNet:
    """A U-Net of four levels on patches of 2x2 pixels, widths 32 to 128, quick on a CPU.

    Args and Returns as in `unet`.
    """
    settings: dict[str, Any] = {
        "widths": (32, 64, 96, 128),
        "upsampling": "bilinear",
        "patch_size": 2,
        "refinement": 16,
    }
    return UNet(num_classes, **settings | options)
