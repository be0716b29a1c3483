"""Mask R-CNN: region proposals, and the class, the box and the mask of each."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int, Key

from segjax import inference, matching, ops
from segjax.mapping import map_shards, map_valid
from segjax.matching.proposals import NEITHER
from segjax.models import layers
from segjax.models.backbones import resnet50
from segjax.models.backbones.resnet import resnet18_of
from segjax.models.detection_heads import (
    BoxHead,
    ConvNorm,
    FeaturePyramid,
    MaskHead,
    ProposalHead,
)
from segjax.models.image_model import ImageModel
from segjax.models.layers import Layer
from segjax.models.outputs import DetectionOutput, SampledOutput
from segjax.typing import Array, Instances

_STAGES = ("stage1", "stage2", "stage3", "stage4")
_MIN_LEVEL = 2  # the finest features have a stride of 2²
_BOX_SIZE, _MASK_SIZE = (7, 7), (14, 14)
_REGIONS = 16  # number that the mask head takes at a time on a CPU


class MaskRCNN(ImageModel):
    """Mask R-CNN: a feature pyramid, region proposals, and heads on the regions' features.

    `apply(variables, images, sizes=None)` takes `[*b, h, w, c]` of any size and returns a
    `DetectionOutput`. `apply(variables, images, train=True, targets=…, keys=…)` also takes the
    objects, `Instances` `[*b, n]`, and random keys `[*b]`; it returns a `SampledOutput` for
    `losses.rpn_loss`, `box_head_loss` and `mask_head_loss`. `sizes`, int32 `[*b, 2]`, are (height,
    width) in pixels of images that are padded at the bottom and right: nothing is found outside.

    Attributes:
      num_classes: Number of classes, without the background.
      backbone: Constructor of `ResNet`.
      features: Channels of the feature pyramid.
      frozen_norm: Whether the parameters and statistics of the backbone's batch norms are frozen.
      norm_epsilon: ε of the backbone's batch norms.
      head_norm: Whether pyramid and heads have batch norms.
      rpn_convs: Number of 3x3 convolutions in the region proposal network.
      box_convs: Number of 3x3 convolutions in the box head.
      box_features: Output channels of the box head's dense layers.
      mask_convs: Number of 3x3 convolutions in the mask head.
      anchor_sizes: Side of the anchors of each level, in pixels. The last level has every second
        pixel of the features of the level before.
      aspect_ratios: Height / width of the anchors.
      level_proposals: The most proposals of a level before suppression, in training and in
        inference.
      max_proposals: The most proposals of an image after suppression, in training and in inference.
      anchor_samples: Number of anchors sampled from each image for training.
      anchor_positives: The greatest fraction of these that is matched to objects.
      proposal_samples: Number of proposals sampled from each image for training.
      proposal_positives: The greatest fraction of these that is matched to objects.
      score_threshold: Objects with scores up to this are dropped.
      iou_threshold: IoU above which an object suppresses one of its class with a lower score.
      suppression: "hard", "soft" or "matrix"; see `inference.detect_objects`.
      max_detections: The most objects of an image.
      roi_method: Sampling of ROIAlign: "bilinear", "nearest", or "rounded" for nearest sampling in
        boxes that are rounded to whole pixels of the features, as in ROI pooling.
      remat, axis_name, dtype, param_dtype: Options of every model; see `ImageModel`.
    """

    num_classes: int
    backbone: Callable[..., nn.Module] = resnet50
    features: int = 256
    frozen_norm: bool = True
    norm_epsilon: float = 1e-5
    head_norm: bool = False
    rpn_convs: int = 1
    box_convs: int = 0
    box_features: tuple[int, ...] = (1024, 1024)
    mask_convs: int = 4
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    level_proposals: tuple[int, int] = (2000, 1000)
    max_proposals: tuple[int, int] = (2000, 1000)
    anchor_samples: int = 256
    anchor_positives: float = 0.5
    proposal_samples: int = 512
    proposal_positives: float = 0.25
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    suppression: str = "hard"
    max_detections: int = 100
    roi_method: str = "bilinear"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "*b h w c"],
        train: bool = False,
        *,
        targets: Instances | None = None,
        keys: Key[Array, "*b"] | None = None,
        sizes: Int[Array, "*b 2"] | None = None,
    ) -> DetectionOutput | SampledOutput:
        if train and (targets is None or keys is None):
            raise ValueError("targets, keys: expected both with train=True, got None")
        *lead, height, width, channels = images.shape
        if sizes is None:
            sizes = jnp.broadcast_to(jnp.array([height, width]), (*lead, 2))
        # The leading axes become one.
        images = jnp.asarray(images).reshape(-1, height, width, channels)
        given = jax.tree.map(
            lambda x: (
                jax.lax.collapse(jnp.asarray(x), 0, len(lead)) if lead else jnp.asarray(x)[None]
            ),
            (targets, keys, sizes),
        )
        output = self._detect(images, train, *given)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), output)

    def _detect(self, images, train, targets, keys, sizes):
        """The outputs `[b, ...]` of images `[b, h, w, c]`."""
        conv, block, dense, up_conv = self._layers(train)
        # As in torchvision: each level has half the size of the one before.
        images = layers.pad_to_multiple(images, 32, 2, mode="constant")
        maps = self.backbone(
            frozen_norm=self.frozen_norm,
            epsilon=self.norm_epsilon,
            name="backbone",
            **self.shared_options,
        )(images, train)
        pyramid = FeaturePyramid(self.features, block, name="pyramid")([maps[s] for s in _STAGES])
        levels = [*pyramid, pyramid[-1][:, ::2, ::2]]

        shapes = [level.shape[1:3] for level in levels]
        anchors = self._anchors(
            shapes, [(images.shape[1] // h, images.shape[2] // w) for h, w in shapes]
        )
        propose = ProposalHead(len(self.aspect_ratios), self.rpn_convs, conv, name="rpn")
        logits, deltas = _at_least_float32(propose(levels))
        own = extents = None
        if (whole := layers.Extent()(images)) is not None:
            extents = jnp.stack([jnp.asarray(layers.Extent()(level)) for level in levels], axis=1)
            own, logits = self._own_anchors(shapes, whole, extents, logits)
        proposals = self._propose(train, anchors, logits, deltas, sizes, own)

        classes = self.num_classes + 1
        box_head = BoxHead(
            classes, self.box_convs, self.box_features, block, dense, name="box_head"
        )
        mask_head = MaskHead(classes, self.mask_convs, block, conv, up_conv, name="mask_head")
        if not train:
            features = self._align(pyramid, proposals.boxes, _BOX_SIZE, extents)
            scores, moves = _at_least_float32(box_head(features, jnp.asarray(proposals.valid)))
            objects = self._select(scores, moves, proposals, sizes)
            features = self._align(pyramid, objects.boxes, _MASK_SIZE, extents)
            masks = self._masks(mask_head, features, jnp.asarray(objects.valid))
            of_class = (objects.classes + 1)[..., None, None, None]
            masks = jnp.take_along_axis(masks, of_class, axis=-1)[..., 0]
            return DetectionOutput(objects, masks)

        keys = jax.vmap(jax.random.split)(keys)
        logits, deltas, anchors, anchor_matches = map_shards(
            jax.vmap(functools.partial(self._sample_anchors, anchors)),
            keys[:, 0],
            targets,
            jnp.concatenate(logits, axis=1),
            jnp.concatenate(deltas, axis=1),
        )
        boxes, matches = map_shards(
            jax.vmap(self._sample_proposals), keys[:, 1], proposals, targets
        )
        features = self._align(pyramid, boxes, _BOX_SIZE)
        scores, moves = _at_least_float32(box_head(features, matches != NEITHER))
        # The positive ones come first.
        first = slice(max(int(self.proposal_samples * self.proposal_positives), 1))
        features = self._align(pyramid, boxes[:, first], _MASK_SIZE)
        masks = self._masks(mask_head, features, matches[:, first] >= 0)
        return SampledOutput(
            logits, deltas, anchors, anchor_matches, scores, moves, boxes, matches, masks
        )

    def _layers(self, train: bool) -> tuple[Layer, Layer, Layer, Layer]:
        """Constructors of `Conv`, `ConvNorm`, `Dense` and `UpConv2x`."""
        conv: Layer = functools.partial(layers.Conv, **self.dtypes)
        norm = self.batch_norm(train) if self.head_norm else None
        block = functools.partial(ConvNorm, norm=norm, conv=conv)
        dense = functools.partial(layers.Dense, **self.dtypes)
        return conv, block, dense, functools.partial(layers.UpConv2x, **self.dtypes)

    def _anchors(self, shapes: Sequence, strides: Sequence) -> list[Float[np.ndarray, "a 4"]]:
        return ops.pyramid_anchors(
            shapes,
            strides=strides,
            sizes=[(size,) for size in self.anchor_sizes],
            aspect_ratios=self.aspect_ratios,
            rounded=True,
            order="ratio",
        )

    def _own_anchors(self, shapes, whole, extents, logits):
        """The anchors of padded images, `[b, a, 4]` for each level, and logits of −inf beyond them.

        The stride of the last level depends on the padded size if that is not a multiple of 64.
        """
        xyxy = lambda sides: jnp.tile(sides[:, None, ::-1], 2)
        still, shifted = (self._anchors(shapes, [step] * len(shapes)) for step in (0, 1))
        anchors, own_logits = [], []
        for i, (around, next_one, x) in enumerate(zip(still, shifted, logits, strict=True)):
            cells, extent = next_one - around, extents[:, i]
            anchors.append(around + cells * xyxy(whole // extent))
            own_logits.append(jnp.where((cells < xyxy(extent)).all(-1), x, -jnp.inf))
        return anchors, own_logits

    def _propose(
        self, train: bool, anchors: list, logits: list, deltas: list, sizes: Array, own: list | None
    ) -> Instances:
        """The proposals, through which no gradient flows."""

        def propose(logits, deltas, size, own):
            return inference.rpn_proposals(
                logits,
                deltas,
                anchors if own is None else own,
                size,
                most_of_level=self.level_proposals[0 if train else 1],
                max_proposals=self.max_proposals[0 if train else 1],
            )

        logits, deltas = jax.lax.stop_gradient((logits, deltas))
        return map_shards(jax.vmap(propose), logits, deltas, sizes, own)

    def _select(
        self, class_logits: Array, box_deltas: Array, proposals: Instances, sizes: Array
    ) -> Instances:
        def select(class_logits, box_deltas, proposals, size):
            return inference.detect_objects(
                class_logits,
                box_deltas,
                proposals.boxes,
                size,
                where=proposals.valid,
                score_threshold=self.score_threshold,
                iou_threshold=self.iou_threshold,
                suppression=self.suppression,
                max_detections=self.max_detections,
            )

        return map_shards(jax.vmap(select), class_logits, box_deltas, proposals, sizes)

    def _align(
        self, pyramid: list, boxes: Array, size: tuple[int, int], extents: Array | None = None
    ) -> Float[jax.Array, "b p h w c"]:
        """ROIAlign of boxes `[b, p, 4]` on the pyramid, unaligned as in torchvision.

        For padded images `extents`, `[b, levels, 2]`, are their (rows, columns) on each level.
        """
        method = self.roi_method
        if method == "rounded":
            levels = ops.assign_levels(boxes, max_level=_MIN_LEVEL + len(pyramid) - 1)
            stride = (2.0**levels)[..., None]
            boxes, method = jnp.round(boxes / stride) * stride, "nearest"

        def align(pyramid, boxes, extents):
            return ops.multilevel_roi_align(
                pyramid,
                boxes,
                size,
                min_level=_MIN_LEVEL,
                aligned=False,
                method=method,
                sizes=None if extents is None else extents[: len(pyramid)],
            )

        return map_shards(jax.vmap(align), pyramid, jax.lax.stop_gradient(boxes), extents)

    def _masks(
        self, head: nn.Module, features: jax.Array, valid: jax.Array
    ) -> Float[jax.Array, "b p mh mw classes"]:
        """Mask logits of the regions, most of which may be padding."""
        if self.head_norm or self.is_initializing():  # batch norm needs all regions
            return _at_least_float32(head(features, valid))
        head, variables = head.unbind()

        def apply_head(variables, features, valid):
            # Inside shard_map they must vary over the devices outside the loop, since their
            # gradients are summed there, and not all devices run every turn of the loop.
            zero = jnp.zeros_like(features, shape=())
            variables = jax.tree.map(lambda x: x + zero.astype(x.dtype), variables)
            apply = functools.partial(head.apply, variables)
            return map_valid(apply, valid, features, valid, chunk=_REGIONS)

        regions = (jax.lax.collapse(x, 0, 2) for x in (features, valid))
        masks = map_shards(apply_head, *regions, shared=(variables,))
        return _at_least_float32(masks.reshape(*valid.shape, *masks.shape[1:]))

    def _sample_anchors(self, anchors, key, targets, logits, deltas):
        """Samples anchors of an image: logits, deltas, anchors and matches."""
        anchors = jnp.concatenate([jnp.asarray(level) for level in anchors])
        matches = matching.match_proposals(
            anchors, targets, high=0.7, low=0.3, allow_low_quality=True
        )
        rows, valid = matching.sample_proposals(
            key, matches, count=self.anchor_samples, positive_fraction=self.anchor_positives
        )
        matches = jnp.where(valid, matches[rows], NEITHER)
        return logits[rows], deltas[rows], anchors[rows], matches

    def _sample_proposals(self, key, proposals, targets):
        """Samples proposals of an image, with its objects added to them: boxes and matches."""
        boxes = jnp.concatenate([proposals.boxes, targets.boxes.astype(proposals.boxes.dtype)])
        valid = jnp.concatenate([proposals.valid, targets.valid])
        matches = matching.match_proposals(boxes, targets, high=0.5, low=0.5, where=valid)
        rows, taken = matching.sample_proposals(
            key, matches, count=self.proposal_samples, positive_fraction=self.proposal_positives
        )
        boxes = jnp.where(valid[:, None], boxes, 0)
        return boxes[rows], jnp.where(taken, matches[rows], NEITHER)


def _at_least_float32(tree):
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)


def maskrcnn_resnet50_fpn(num_classes: int, **options: Any) -> MaskRCNN:
    """Mask R-CNN on a ResNet-50: 44.4 million parameters with COCO's 90 classes.

    The backbone's batch norms are frozen and have an ε of 0, as in torchvision's weights.

    Args:
      num_classes: Number of classes, without the background; 90 for COCO, whose ids go up to 90.
      **options: Attributes of `MaskRCNN`.

    Returns:
      The module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import models
      >>> model = models.maskrcnn_resnet50_fpn(90)
      >>> image = jax.ShapeDtypeStruct((1, 65, 64, 3), jnp.float32)
      >>> output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
      >>> output.objects.boxes.shape, output.mask_logits.shape
      ((1, 100, 4), (1, 100, 28, 28))

    References:
      He et al., "Mask R-CNN", 2017; Lin et al., "Feature pyramid networks for object
      detection", 2017.
    """
    return MaskRCNN(num_classes, **{"norm_epsilon": 0.0} | options)


def maskrcnn_resnet50_fpn_v2(num_classes: int, **options: Any) -> MaskRCNN:
    """Mask R-CNN with batch norm and deeper heads: 46.4 million parameters with 90 classes.

    Args and Returns as in `maskrcnn_resnet50_fpn`.

    References:
      Li et al., "Benchmarking detection transfer learning with vision transformers", 2021.
    """
    settings: dict[str, Any] = {
        "frozen_norm": False,
        "head_norm": True,
        "rpn_convs": 2,
        "box_convs": 4,
        "box_features": (1024,),
    }
    return MaskRCNN(num_classes, **settings | options)


def maskrcnn_tiny(num_classes: int, *, width: int = 64, **options: Any) -> MaskRCNN:
    """A small Mask R-CNN on a ResNet-18, for small objects, that trains on a CPU.

    Segjax's own configuration: 64 features, anchors from 8 pixels up, fewer proposals.

    Args:
      num_classes: Number of classes.
      width: Channels of the backbone's first stage; 64 in ResNet-18.
      **options: Attributes of `MaskRCNN`.

    Returns:
      The module.

    Example:
      >>> from segjax import models
      >>> models.maskrcnn_tiny(5, width=32).num_classes
      5
    """
    settings: dict[str, Any] = {
        "backbone": resnet18_of(width),
        "features": 64,
        "frozen_norm": False,
        "box_features": (256, 256),
        "mask_convs": 2,
        "anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0),
        "level_proposals": (400, 400),
        "max_proposals": (400, 300),
        "anchor_samples": 128,
        "proposal_samples": 64,
        "proposal_positives": 0.5,
    }
    return MaskRCNN(num_classes, **settings | options)
