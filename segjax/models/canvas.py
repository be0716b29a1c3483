"""Models on padded images, with the same outputs as without padding."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Int

from segjax.models import layers
from segjax.models.backbones.mit import MixTransformer
from segjax.models.backbones.mobilenet_v3 import MobileNetV3
from segjax.models.backbones.resnet import ResNet
from segjax.models.deeplab import DeepLabV3Plus
from segjax.models.detection_heads import BoxHead, MaskHead
from segjax.models.detr import Detr
from segjax.models.fcn import DenseClassifier
from segjax.models.lraspp import LRASPP
from segjax.models.mask2former import Mask2Former
from segjax.models.mask_rcnn import MaskRCNN
from segjax.models.maskformer import MaskFormer
from segjax.models.segformer import SegFormer
from segjax.models.u_net import UNet
from segjax.models.u_net_resnet import UNetResNet
from segjax.typing import Array

_MULTIPLE = 32  # pixels; the largest stride of a map, except for a detector's last level
_ON_BACKBONES = (
    UNetResNet
    | DenseClassifier
    | DeepLabV3Plus
    | LRASPP
    | SegFormer
    | Detr
    | MaskRCNN
    | MaskFormer
    | Mask2Former
)
_BACKBONES = ResNet | MobileNetV3 | MixTransformer


def is_canvas_invariant(model: nn.Module) -> bool:
    """Whether padding does not change a model's outputs within `blind_beyond`.

    True for models of convolutions, pooling, upsampling and attention to pixels; False for models
    whose position embeddings or windows cover the whole canvas, such as ViTs and Swin transformers.

    Args:
      model: The Flax module.

    Returns:
      True if its outputs inside the image are the same up to rounding.

    Example:
      >>> from segjax import models
      >>> [models.is_canvas_invariant(model(3)) for model in (models.unet_tiny, models.eomt_tiny)]
      [True, False]
    """
    if isinstance(model, UNet):
        stride = model.patch_size * 2 ** (len(model.widths) - 1)
        return model.dimensions == 2 and _MULTIPLE % stride == 0
    try:
        return isinstance(model, _ON_BACKBONES) and isinstance(
            model.backbone(parent=None), _BACKBONES
        )
    except TypeError:  # a user's backbone with required options
        return False


def blind_beyond(
    sizes: Int[Array, "*b 2"] | None, canvas: tuple[int, int]
) -> contextlib.AbstractContextManager[None]:
    """A context in which models ignore the padding of images on a larger canvas.

    Each image is treated as if its canvas ended at its own sides, rounded up to multiples of 32
    pixels: beyond them convolutions see zeros, means and attention skip pixels, and upsampling
    repeats the border. So the outputs of a model that `is_canvas_invariant` do not depend on the
    size of the canvas.

    Args:
      sizes: `[*b, 2]`, (height, width) in pixels of the images, which stand at the top left; None
        if they fill the canvas.
      canvas: (height, width) in pixels of the canvas; if these are not multiples of 32, the model
        sees all of it.

    Returns:
      A context manager around `model.apply`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.unet_tiny(3)
      >>> image = jnp.pad(jnp.ones((1, 20, 32, 3)), [(0, 0), (0, 44), (0, 0), (0, 0)])
      >>> variables = model.init(jax.random.key(0), image)
      >>> with models.blind_beyond(jnp.array([[20, 32]]), (64, 32)):
      ...     logits = model.apply(variables, image).logits
      >>> own = model.apply(variables, image[:, :32]).logits
      >>> bool(jnp.allclose(logits[:, :32], own, atol=1e-5))
      True
    """
    if sizes is None or any(side % _MULTIPLE for side in canvas):
        return contextlib.nullcontext()
    extent = -(-jnp.asarray(sizes) // _MULTIPLE) * _MULTIPLE
    return nn.intercept_methods(_Blind(extent, canvas))


class _Blind:
    """Intercepts calls of modules on canvases of which only `extent` is seen."""

    def __init__(self, extent: jax.Array, canvas: tuple[int, int]):
        self._extent, self._canvas = extent, canvas
        self._is_in_region = False

    def __call__(
        self, call: Callable, args: tuple, options: dict, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if context.method_name != "__call__" or self._is_in_region:
            return call(*args, **options)
        match module:
            case BoxHead() | MaskHead():
                self._is_in_region = True
                try:
                    return call(*args, **options)
                finally:
                    self._is_in_region = False
            case layers.Extent():
                return self._extent_of(*args)
            case nn.GroupNorm():
                (x,) = args
                options = options | {"mask": jnp.broadcast_to(self._inside(x), x.shape)}
            case layers.Conv(kernel_size=size) if size > 1:
                args = tuple(jnp.where(self._inside(x), x, 0) for x in args)
        return call(*args, **options)

    def _extent_of(self, x: jax.Array) -> jax.Array:
        """The rows and columns of a map within the extent of each image."""
        strides = map(_stride, x.shape[-3:-1], self._canvas)
        return -(-self._extent // jnp.array(list(strides)))

    def _inside(self, x: jax.Array) -> jax.Array:
        """`[*b, 1…, h, w, 1]` of a map."""
        where = layers.inside(self._extent_of(x), (x.shape[-3], x.shape[-2]))
        lead = self._extent.ndim - 1
        return jnp.expand_dims(where, (*range(lead, x.ndim - 3), -1))


def _stride(side: int, canvas: int) -> int:
    """The power of two by which a map is coarser than its canvas."""
    stride = 1
    while -(-canvas // stride) > side:
        stride *= 2
    if -(-canvas // stride) != side:
        raise ValueError(
            f"canvas: expected a map of {canvas} pixels at a stride of a power of 2, got {side}"
        )
    return stride
