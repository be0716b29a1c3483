"""Boundary metrics: Boundary IoU and boundary F-score."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer

from segjax.labels import valid_labels
from segjax.metrics.counting import count_pairs
from segjax.metrics.sums import Sums
from segjax.numerics import broadcast_where, safe_divide
from segjax.ops.boundaries import mask_boundary
from segjax.ops.distance import distance_transform
from segjax.typing import Array


def boundary_iou(
    predictions: Bool[Array, "*b h w"],
    targets: Bool[Array, "*b h w"],
    *,
    width: int | None = None,
    fraction: float = 0.02,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Boundary IoU, that of the inner bands of two masks: `|P_d ∩ Y_d| / |P_d ∪ Y_d|`.

    Args:
      predictions: `[*b, h, w]`, boolean.
      targets: `[*b, h, w]`, boolean.
      width: Width `d` of the bands in pixels; None uses `fraction`.
      fraction: Width as a fraction of the image diagonal; rounded, at least 1 pixel.
      where: Broadcasts to the masks; False for void pixels, which do not count and have no
        boundary.

    Returns:
      float32 `[*b]`, in 0..1; 1 where both masks are empty.

    Raises:
      ValueError: If the shapes do not fit together, or `width` or `fraction` is not positive.
      TypeError: If a mask or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> square = jnp.zeros((6, 6), bool).at[1:5, 1:5].set(True)
      >>> ring = square.at[2:4, 2:4].set(False)  # has the same band of one pixel
      >>> float(metrics.boundary_iou(ring, square, width=1))
      1.0

    References:
      Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation",
      2021, equation 1.
    """
    _check_masks(predictions, targets)
    size = {"fraction": fraction} if width is None else {"width": width}
    p, y = (mask_boundary(mask, **size, where=where) for mask in (predictions, targets))
    return safe_divide(_count(p & y), _count(p | y), default=1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundaryScores:
    """Boundary IoUs, each in 0..1.

    Attributes:
      mean_boundary_iou: Mean over the classes labelled or predicted anywhere; 1 without any.
      class_boundary_iou: `[c]`; 1 for a class neither labelled nor predicted.
    """

    mean_boundary_iou: Float[Array, ""]
    class_boundary_iou: Float[Array, "c"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LabelBoundaries(Sums):
    """Sums for Boundary IoU: pixels in the bands of the true and predicted masks of each class.

    The Boundary IoU of a class over a dataset is the ratio of sums over all images,
    `Σ |P_d ∩ Y_d| / Σ |P_d ∪ Y_d|`, as for the IoU.

    Attributes:
      both: integers `[c]`, pixels in the bands of both masks of a class.
      labelled: integers `[c]`, pixels in the band of its true mask.
      predicted: integers `[c]`, pixels in the band of its predicted mask.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> labels = jnp.array([[[0, 0, 1, 1]]])
      >>> float(metrics.label_boundaries(labels, labels, 2).compute().mean_boundary_iou)
      1.0
    """

    both: Integer[Array, "c"]
    labelled: Integer[Array, "c"]
    predicted: Integer[Array, "c"]

    @classmethod
    def empty(cls, num_classes: int) -> "LabelBoundaries":
        """The metric of no images."""
        return cls(*(jnp.zeros(num_classes, jnp.int32) for _ in range(3)))

    def update(
        self,
        predictions: Integer[Array, "b h w"],
        labels: Integer[Array, "b h w"],
        *,
        fraction: float = 0.02,
        where: Bool[Array, "..."] | None = None,
        sizes: Int[Array, "b 2"] | None = None,
    ) -> "LabelBoundaries":
        """Add a batch; the arguments are those of `label_boundaries`."""
        more = label_boundaries(
            predictions, labels, len(self.both), fraction=fraction, where=where, sizes=sizes
        )
        return self.merge(more)

    def compute(self) -> BoundaryScores:
        """The boundary IoU of each class, and their mean."""
        union = self.labelled + self.predicted - self.both
        both, union = (jnp.asarray(x.astype(jnp.float32)) for x in (self.both, union))
        scores = safe_divide(both, union, default=1.0)
        present = union > 0
        mean = safe_divide(jnp.sum(jnp.where(present, scores, 0)), present.sum(), default=1.0)
        return BoundaryScores(mean_boundary_iou=mean, class_boundary_iou=scores)


def label_boundaries(
    predictions: Integer[Array, "b h w"],
    labels: Integer[Array, "b h w"],
    num_classes: int,
    *,
    fraction: float = 0.02,
    where: Bool[Array, "..."] | None = None,
    sizes: Int[Array, "b 2"] | None = None,
) -> LabelBoundaries:
    """Sums for the Boundary IoU of every class; `compute` gives the scores.

    A pixel is in the band of its class if the square of `2d + 1` pixels around it contains a pixel
    of another class or extends beyond the image, as in `boundary_iou` of the class masks. The cost
    does not depend on the number of classes.

    Args:
      predictions: integers `[b, h, w]`.
      labels: integers `[b, h, w]`.
      num_classes: c, static.
      fraction: Width `d` as a fraction of the image diagonal; rounded, at least 1 pixel.
      where: Broadcasts to `[b, h, w]`; False for void pixels, which do not count and have no
        boundary.
      sizes: integers `[b, 2]`, (height, width) in pixels of images that are padded at the bottom
        and right; None if they are not padded.

    Returns:
      Sums in pixels; pixels whose label or prediction is outside 0..c−1 are left out.

    Raises:
      ValueError: If the shapes do not fit together, or `num_classes` or `fraction` is not positive.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> labels = jnp.array([[[0, 0, 0, 1, 1, 1]] * 6])
      >>> metrics.label_boundaries(jnp.roll(labels, 1, axis=-1), labels, 2).both
      Array([4, 8], dtype=int32)

    References:
      Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation",
      2021, equation 1 with the bands of its section 4.
    """
    if labels.ndim != 3 or predictions.shape != labels.shape:
        raise ValueError(
            "predictions, labels: expected the same shape [b, h, w], got "
            f"{predictions.shape}, {labels.shape}"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    if fraction <= 0:
        raise ValueError(f"fraction: expected a positive number, got {fraction}")
    labels, valid = valid_labels(labels, num_classes, where=where)
    predictions, valid = valid_labels(predictions, num_classes, where=valid, name="predictions")
    canvas = jnp.array(labels.shape[-2:])
    sizes = jnp.broadcast_to(canvas, (len(labels), 2)) if sizes is None else jnp.asarray(sizes)
    diagonals = jnp.hypot(*jnp.moveaxis(sizes.astype(jnp.float32), -1, 0))
    widths = jnp.maximum(1, jnp.round(fraction * diagonals)).astype(int)
    most = max(1, round(fraction * math.hypot(*labels.shape[-2:])))  # for an image without padding
    rows, columns = jnp.mgrid[: labels.shape[1], : labels.shape[2]]
    inside = (rows < sizes[:, :1, None]) & (columns < sizes[:, 1:, None])
    valid &= inside

    p, y = (_bands(x, valid, inside, widths, num_classes, most) for x in (predictions, labels))
    nothing = jnp.zeros_like(labels)

    def count(values, where):
        return count_pairs(values, nothing, (num_classes, 1), where=where)[:, 0]

    return LabelBoundaries(
        both=count(labels, p & y & (predictions == labels)),
        labelled=count(labels, y),
        predicted=count(predictions, p),
    )


def _bands(
    labels: Array,
    valid: jax.Array,
    inside: jax.Array,
    widths: jax.Array,
    num_classes: int,
    most: int,
) -> jax.Array:
    """The pixels within `widths` `[b]` of another class or the outside, `[b, h, w]`."""
    # Small integers, as the cost is that of moving them.
    dtype = next(x for x in (jnp.int8, jnp.int16, jnp.int32) if num_classes <= jnp.iinfo(x).max)
    # The maximum ignores void (−1); the outside is greater than every class.
    both = jnp.stack([labels, num_classes - 1 - labels], axis=1)
    both = jnp.where(inside[:, None], jnp.where(valid[:, None], both, -1), num_classes)
    widen = functools.partial(_square_max, most=most, outside=num_classes)
    greatest = jax.vmap(jax.vmap(widen, (0, None)))(both.astype(dtype), widths)
    return valid & ~(greatest == both).all(1)


def _square_max(x: jax.Array, width: jax.Array, *, most: int, outside: int) -> jax.Array:
    """The maximum over the square of `2 width + 1` pixels around each of `[h, w]`; `width ≤ most`.

    Each step joins three squares to one three times as wide.
    """
    reach = 0
    while reach < most:
        farthest = min(2 * reach + 1, most - reach)
        shift = jnp.clip(width - reach, 0, farthest)
        for axis in (0, 1):
            margins = [(farthest, farthest) if axis == a else (0, 0) for a in (0, 1)]
            padded = jnp.pad(x, margins, constant_values=outside)
            part = functools.partial(
                jax.lax.dynamic_slice_in_dim, padded, slice_size=x.shape[axis], axis=axis
            )
            x = jnp.maximum(x, jnp.maximum(part(farthest - shift), part(farthest + shift)))
        reach += farthest
    return x


def boundary_f_score(
    predictions: Bool[Array, "*b h w"],
    targets: Bool[Array, "*b h w"],
    *,
    fraction: float = 0.008,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Boundary F-score: `2PR / (P + R)` of boundary precision and recall.

    `P = |{p ∈ ∂P: d(p, ∂Y) ≤ τ}| / |∂P|`, and `R` is the same with the masks exchanged. A pixel is
    in the boundary `∂` if its right, lower or lower right neighbour is on the other side.

    Args:
      predictions: `[*b, h, w]`, boolean.
      targets: `[*b, h, w]`, boolean.
      fraction: Tolerance `τ` as a fraction of the image diagonal; rounded up to whole pixels.
      where: Broadcasts to the masks; False for void pixels, which do not count and have no
        boundary.

    Returns:
      float32 `[*b]`, in 0..1; 1 where neither mask has a boundary.

    Raises:
      ValueError: If the shapes do not fit together, or `fraction` is negative.
      TypeError: If a mask or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> left = jnp.zeros((8, 8), bool).at[:, :4].set(True)
      >>> float(metrics.boundary_f_score(jnp.roll(left, 1, axis=1).at[:, 0].set(True), left))
      1.0

    References:
      Perazzi et al., "A benchmark dataset and evaluation methodology for video object
      segmentation" (DAVIS), 2016, section 5.2; its code matches by dilation with a disk, as here.
    """
    _check_masks(predictions, targets)
    if fraction < 0:
        raise ValueError(f"fraction: expected at least 0, got {fraction}")
    valid = broadcast_where(where, targets.shape)
    tolerance = math.ceil(fraction * math.hypot(*targets.shape[-2:]))
    p, y = (_border(jnp.asarray(mask), valid) for mask in (predictions, targets))

    def share(border, other):
        near = distance_transform(~other) <= tolerance
        # Nothing is near a boundary that does not exist, however small the image.
        near &= jnp.any(other, axis=(-2, -1), keepdims=True)
        return safe_divide(_count(border & near), _count(border), default=1.0)

    precision, recall = share(p, y), share(y, p)
    return safe_divide(2 * precision * recall, precision + recall)


def _border(mask: jax.Array, valid: jax.Array) -> jax.Array:
    """The pixels whose right, lower or lower right neighbour is on the other side."""

    def shifted(array, down, right):
        pad = [(0, 0)] * (array.ndim - 2) + [(0, down), (0, right)]
        return jnp.pad(array, pad, mode="edge")[..., down:, right:]

    differs = jnp.zeros_like(mask)
    for step in [(0, 1), (1, 0), (1, 1)]:
        differs |= (shifted(mask, *step) != mask) & shifted(valid, *step)
    return differs & valid


def _count(mask: jax.Array) -> jax.Array:
    """The pixels of each mask, as float32: exact up to 2²⁴."""
    return jnp.sum(mask, axis=(-2, -1), dtype=jnp.float32)


def _check_masks(predictions: Array, targets: Array) -> None:
    if targets.ndim < 2:
        raise ValueError(f"targets: expected shape [*b, h, w], got {targets.shape}")
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions: expected the shape of targets, {targets.shape}, got {predictions.shape}"
        )
    for name, mask in (("predictions", predictions), ("targets", targets)):
        if mask.dtype != bool:
            raise TypeError(f"{name}: expected bool, got {mask.dtype}")
