"""Geometric augmentation, which moves the image and all of its labels together."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from segjax.data.augment.color import as_float
from segjax.data.instances import segment_areas
from segjax.labels import valid_labels
from segjax.numerics import accumulation_dtype, safe_divide
from segjax.ops.boxes import box_area, clip_boxes
from segjax.ops.interpolation import sample
from segjax.ops.masks import masks_to_boxes
from segjax.typing import Array, Instances, Panoptic, Points, Record


def affine(record: Record, matrix: Float[Array, "2 3"], *, shape: tuple[int, int]) -> Record:
    """Applies an affine map: output pixel `p` shows the input at `matrix @ (p, 1)`.

    The image is interpolated bilinearly, maps and masks by the nearest pixel. Outside the
    picture the image is 0, `where` False and `panoptic` -1. Boxes follow from the masks; without
    masks, they are drawn around their moved corners and clipped. Instances, segments and points
    that leave the picture become invalid; `tags` are those of the labels that remain.

    Args:
      record: the record of one example, without batch axes.
      matrix: `[2, 3]`, invertible; maps (x, y) of the output to (x, y) of the input, in continuous
        pixels.
      shape: (height, width) of the output.

    Returns:
      The example, with a floating image, `where` and `size`.

    Raises:
      ValueError: if there is no image, or `matrix` or `shape` is invalid.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> from segjax.typing import Record
      >>> record = Record(image=jnp.arange(6.0).reshape(2, 3, 1) / 5)
      >>> mirror = jnp.array([[-1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
      >>> data.affine(record, mirror, shape=(2, 3)).image[..., 0]
      Array([[0.4, 0.2, 0. ],
             [1. , 0.8, 0.6]], dtype=float32)
    """
    if record.image is None:
        raise ValueError("record.image: expected an image, got None")
    if matrix.shape != (2, 3):
        raise ValueError(f"matrix: expected shape (2, 3), got {matrix.shape}")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape: expected (height, width), at least 1 each, got {shape}")
    matrix = jnp.asarray(matrix, accumulation_dtype(matrix))
    image = as_float(record.image)
    canvas = jnp.array(image.shape[:2], jnp.int32)
    size = canvas if record.size is None else jnp.asarray(record.size)
    centers = jnp.stack(jnp.meshgrid(*(jnp.arange(side) + 0.5 for side in shape[::-1])), axis=-1)
    source = _transform(matrix, centers)
    inside = jnp.all((source >= 0) & (source < size[::-1]), axis=-1)
    pixels = jnp.clip(jnp.floor(source).astype(jnp.int32), 0, canvas[::-1] - 1)
    cols, rows = pixels[..., 0], pixels[..., 1]

    def nearest(maps):
        """Samples maps `[..., h, w]` at the source pixels; None stays None."""
        return jax.tree.map(lambda a: jnp.asarray(a)[..., rows, cols], maps)

    def nearest_inside(masks):
        return jax.tree.map(lambda a: a & inside, nearest(masks))

    labels = nearest(record.labels)
    where = inside if record.where is None else nearest_inside(record.where)
    # Border pixels are repeated beyond the picture, so that no padding of the canvas mixes in.
    source = jnp.clip(source, 0.5, size[::-1] - 0.5)
    return record.replace(
        image=jnp.where(inside[..., None], sample(image, source), 0),
        labels=labels,
        where=where,
        size=jnp.array(shape, jnp.int32),
        instances=_move_instances(record.instances, matrix, shape, nearest_inside),
        panoptic=_move_panoptic(record.panoptic, nearest, inside),
        edges=nearest_inside(record.edges),
        points=_move_points(record.points, matrix, shape),
        scribbles=nearest_inside(record.scribbles),
        tags=_tags(record.tags, labels, where),
    )


def random_geometry(
    key: jax.Array,
    record: Record,
    *,
    shape: tuple[int, int],
    zoom: tuple[float, float] = (0.5, 2.0),
    zoom_from: Literal["picture", "fit"] = "picture",
    rotation: float = 0.0,
    flip: bool = True,
) -> Record:
    """A random crop of the scaled, turned and mirrored example, in a single resampling.

    The scale is log-uniform, the angle uniform. With `zoom_from="fit"` the scale is uniform, and 1
    stands for that at which the picture just fits into the crop: large-scale jitter where `zoom`
    is (0.1, 2). The crop's place is uniform among the whole pixels at which it lies within the
    scaled picture; or, where the picture is smaller than the crop, the picture lies within the
    crop.

    Args:
      key: random key.
      record: the record of one example, without batch axes.
      shape: (height, width) of the crop.
      zoom: least and largest scale of the picture.
      zoom_from: what `zoom` is relative to, "picture" (its own size) or "fit" (the size at which it
        fits into the crop).
      rotation: largest angle, to either side, about the centre of the crop, in degrees.
      flip: whether to mirror left and right half of the time.

    Returns:
      The example as `affine` gives it; a crop at scale 1 keeps every value as it is.

    Raises:
      ValueError: if `zoom` is not two positive numbers in order, or `zoom_from` is unknown.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> from segjax.typing import Record
      >>> record = Record(image=jnp.ones((40, 60, 3)))
      >>> data.random_geometry(jax.random.key(0), record, shape=(32, 32)).image.shape
      (32, 32, 3)

    References:
      Ghiasi et al., "Simple copy-paste is a strong data augmentation
      method for instance segmentation", 2021, section 3.
    """
    low, high = zoom
    if not 0 < low <= high:
        raise ValueError(f"zoom: expected (least, largest), above 0, got {zoom}")
    if record.image is None:
        raise ValueError("record.image: expected an image, got None")
    if zoom_from not in ("picture", "fit"):
        raise ValueError(f'zoom_from: expected "picture" or "fit", got {zoom_from!r}')
    draw, x, y, turn, mirror = jax.random.uniform(key, (5,))
    size = jnp.array(record.image.shape[:2]) if record.size is None else jnp.asarray(record.size)
    crop = jnp.array(shape[::-1])
    if zoom_from == "fit":
        scale = (low + (high - low) * draw) * jnp.min(crop / size[::-1])
    else:
        scale = low * (high / low) ** draw
    free = scale * size[::-1] - crop
    offset = jnp.sign(free) * jnp.floor(jnp.stack([x, y]) * (jnp.floor(jnp.abs(free)) + 1))

    angle = jnp.deg2rad(rotation) * (2 * turn - 1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    side = jnp.where(flip & (mirror < 0.5), -1, 1)
    linear = jnp.array([[cos * side, -sin], [sin * side, cos]]) / scale
    translation = (crop / 2 + offset) / scale - jnp.sum(linear * (crop / 2), axis=-1)
    return affine(record, jnp.column_stack([linear, translation]), shape=shape)


def _transform(matrix: Array, points: Float[Array, "*n 2"]) -> Float[jax.Array, "*n 2"]:
    x, y = points[..., 0], points[..., 1]
    return jnp.stack([a * x + b * y + c for a, b, c in matrix], axis=-1)


def _inverse(matrix: Array) -> Float[jax.Array, "2 3"]:
    """The inverse of the affine map."""
    (a, b, x), (c, d, y) = matrix
    linear = safe_divide(jnp.array([[d, -b], [-c, a]]), a * d - b * c)
    return jnp.column_stack([linear, -jnp.sum(linear * jnp.stack([x, y]), axis=-1)])


def _move_instances(
    instances: Instances | None, matrix: Array, shape: tuple[int, int], nearest_inside: Callable
) -> Instances | None:
    if instances is None:
        return None
    if instances.masks is None:
        boxes = clip_boxes(_move_boxes(instances.boxes, matrix), shape)
        (a, b, _), (c, d, _) = matrix
        areas = jax.tree.map(
            lambda area: safe_divide(area, jnp.abs(a * d - b * c)), instances.areas
        )
        valid = instances.valid & (box_area(boxes) > 0)
        return dataclasses.replace(instances, boxes=boxes, valid=valid, areas=areas)
    masks = nearest_inside(instances.masks)
    pixels = jnp.sum(masks, axis=(1, 2), dtype=jnp.float32)
    return dataclasses.replace(
        instances,
        boxes=masks_to_boxes(masks),
        valid=instances.valid & (pixels > 0),
        masks=masks,
        areas=None if instances.areas is None else pixels,
    )


def _move_boxes(boxes: Float[Array, "n 4"], matrix: Array) -> Float[jax.Array, "n 4"]:
    """The boxes around the moved corners: moved centres, half extents times `|linear part|`."""
    inverse, boxes = _inverse(matrix), jnp.asarray(boxes)
    start, end = boxes[:, :2], boxes[:, 2:]
    center = _transform(inverse, (start + end) / 2)
    half = jnp.sum(jnp.abs(inverse[:, :2]) * ((end - start) / 2)[:, None], axis=-1)
    return jnp.concatenate([center - half, center + half], axis=-1)


def _move_panoptic(
    panoptic: Panoptic | None, nearest: Callable, inside: Bool[Array, "h w"]
) -> Panoptic | None:
    if panoptic is None:
        return None
    segments = jnp.where(inside, nearest(panoptic.segments), -1)
    seen = segment_areas(segments, panoptic.valid.size) > 0
    return dataclasses.replace(panoptic, segments=segments, valid=panoptic.valid & seen)


def _move_points(points: Points | None, matrix: Array, shape: tuple[int, int]) -> Points | None:
    if points is None:
        return None
    xy = _transform(_inverse(matrix), points.xy)
    inside = jnp.all((xy >= 0) & (xy < jnp.array(shape[::-1])), axis=-1)
    return dataclasses.replace(points, xy=xy, valid=points.valid & inside)


def _tags(
    tags: Bool[Array, "classes"] | None, labels: Int[Array, "h w"] | None, where: Bool[Array, "h w"]
) -> Bool[Array, "classes"] | None:
    """The classes among the labels; without labels, the tags of the whole picture."""
    if tags is None or labels is None:
        return tags
    labels, valid = valid_labels(labels, len(tags), where=where)
    return jnp.zeros(len(tags), bool).at[labels].max(valid)
