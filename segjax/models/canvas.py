"""Pictures on larger canvases: models see these end where the pictures do."""

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

_MULTIPLE = 32  # of pixels; no stride of a map is larger, but that of a detector's last level
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
    """Whether `blind_beyond` makes of every canvas the picture's own for this model.

    It does for what is built of convolutions, pooling, upsampling and attention with keys of the
    picture. It does not where positions or windows are laid over the whole canvas, as in ViTs and
    Swin transformers.

    Args:
      model: the Flax module.

    Returns:
      Whether its outputs inside the picture are the same, but for rounding.

    Example:
      >>> from segjax import models
      >>> is_canvas_invariant(models.unet_tiny(3)), is_canvas_invariant(models.eomt_tiny(3))
      (True, False)
    """
    if isinstance(model, UNet):
        stride = model.patch_size * 2 ** (len(model.widths) - 1)
        return model.dimensions == 2 and _MULTIPLE % stride == 0
    try:
        return isinstance(model, _ON_BACKBONES) and isinstance(
            model.backbone(parent=None), _BACKBONES
        )
    except TypeError:  # a backbone of somebody's own, with options that it needs
        return False


def blind_beyond(
    sizes: Int[Array, "*b 2"] | None, canvas: tuple[int, int]
) -> contextlib.AbstractContextManager[None]:
    """Within it, a model sees of each canvas no more than of the picture's own.

    The own canvas of a picture has its sides, rounded up to multiples of 32 pixels. Beyond that,
    convolutions see zeros, means and attention nothing, and upsampling the border repeated: as they
    do at the end of a canvas. So a model that `is_canvas_invariant` gives the same on any.

    Args:
      sizes: `[*b, 2]`, (height, width) in pixels of the pictures at the top left; None for nothing
        to be blind to.
      canvas: (height, width) of the images that the model is called with; where these are not
        multiples of 32, all is seen.

    Returns:
      A context manager around `model.apply`.

    Example:
      >>> from segjax import models
      >>> model = models.unet_tiny(3)
      >>> image = jnp.pad(jnp.ones((1, 20, 32, 3)), [(0, 0), (0, 44), (0, 0), (0, 0)])
      >>> variables = model.init(jax.random.key(0), image)
      >>> with blind_beyond(jnp.array([[20, 32]]), (64, 32)):
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
    """What becomes of a module's call on canvases of which only `extent` is seen."""

    def __init__(self, extent: jax.Array, canvas: tuple[int, int]):
        self._extent, self._canvas = extent, canvas
        self._of_regions = False

    def __call__(
        self, call: Callable, args: tuple, options: dict, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if context.method_name != "__call__" or self._of_regions:
            return call(*args, **options)
        match module:
            case BoxHead() | MaskHead():
                self._of_regions = True
                try:
                    return call(*args, **options)
                finally:
                    self._of_regions = False
            case layers.Extent():
                return self._extent_of(*args)
            case nn.GroupNorm():
                (x,) = args
                options = options | {"mask": jnp.broadcast_to(self._inside(x), x.shape)}
            case layers.Conv(kernel_size=size) if size > 1:
                args = tuple(jnp.where(self._inside(x), x, 0) for x in args)
        return call(*args, **options)

    def _extent_of(self, x: jax.Array) -> jax.Array:
        """The rows and columns of a map that show the canvas's seen part."""
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
            f"a map with {side} rows or columns is none of a canvas of {canvas} pixels"
        )
    return stride
