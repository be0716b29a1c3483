"""Non-maximum suppression: of overlapping detections, keep or favour the one that scores best."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, Int, Integer

from segjax.mapping import stable_argsort
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.ops.boxes import box_area
from segjax.ops.masks import mask_iou
from segjax.ops.overlap import box_iou
from segjax.typing import Array

# Boxes that a CPU meets at once, and those that accelerators settle at once.
_CHUNK = 512
_TILE = 256


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    *,
    iou_threshold: float,
    where: Bool[Array, "..."] | None = None,
) -> Bool[jax.Array, " n"]:
    """Greedy suppression: box `i` is kept unless a kept one before it has `IoU > iou_threshold`.

    Before means a higher score, or the same score and a smaller index. Not differentiable: what
    depends on the result has no gradient by `boxes` and `scores` through it.

    Args:
      boxes: `[n, 4]`, xyxy in pixels, of any sign; a box of area 0 overlaps none.
      scores: `[n]`.
      iou_threshold: from 0 to 1; an IoU equal to it does not suppress.
      where: broadcasts to `[n]`; False for padding, which is not kept and suppresses nothing.

    Returns:
      Booleans `[n]`, True for the boxes to keep.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0], [8.0, 8.0, 9.0, 9.0]])
      >>> nms(boxes, jnp.array([0.6, 0.9, 0.1]), iou_threshold=0.5)
      Array([False,  True,  True], dtype=bool)

    References:
      Felzenszwalb et al., "Object detection with discriminatively trained part based models",
      2010, section 7.2; the order of ties and the strict inequality are torchvision's.
    """
    return _greedy(boxes, scores, None, iou_threshold, where)


def batched_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Integer[Array, " n"],
    *,
    iou_threshold: float,
    where: Bool[Array, "..."] | None = None,
) -> Bool[jax.Array, " n"]:
    """`nms` of every class by itself: boxes of two classes do not suppress one another.

    Args:
      boxes: `[n, 4]`, xyxy in pixels.
      scores: `[n]`.
      classes: integers `[n]`; or whatever else tells the groups apart, as the level of a pyramid.
      iou_threshold: from 0 to 1; an IoU equal to it does not suppress.
      where: broadcasts to `[n]`; False for padding.

    Returns:
      Booleans `[n]`, True for the boxes to keep.

    Raises:
      ValueError: if the shapes do not fit together.
      TypeError: if `where` is not boolean.

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0]])
      >>> batched_nms(boxes, jnp.array([0.9, 0.8, 0.7]), jnp.array([0, 1, 1]), iou_threshold=0.5)
      Array([ True,  True, False], dtype=bool)
    """
    _check_row("classes", classes, boxes)
    return _greedy(boxes, scores, jnp.asarray(classes, jnp.int32), iou_threshold, where)


def soft_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    *,
    method: str = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, " n"]:
    """Scores lowered by overlap: time and again the best box left lowers those that remain.

    `s_i ← s_i · exp(−IoU²/σ)` ("gaussian"), or `s_i · (1 − IoU)` where `IoU > iou_threshold`
    ("linear"). Differentiable in `boxes` and `scores`; the order is constant.

    Args:
      boxes: `[n, 4]`, xyxy in pixels.
      scores: `[n]`, at least 0. Ties go by index.
      method: "gaussian" or "linear".
      iou_threshold: from 0 to 1, for "linear".
      sigma: positive, for "gaussian".
      where: broadcasts to `[n]`; False for padding.

    Returns:
      `[n]`, at least float32: the new scores; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together, `method` is unknown or `sigma` not positive.
      TypeError: if `where` is not boolean.

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])
      >>> soft_nms(boxes, jnp.array([0.8, 0.6]), method="linear")
      Array([0.8, 0.3], dtype=float32)

    References:
      Bodla et al., "Soft-NMS: improving object detection with one line of code", 2017,
      section 3.
    """
    _check_options(method, sigma)
    _check_row("scores", scores, boxes)
    where = broadcast_where(where, scores.shape)
    boxes = jnp.where(where[:, None], boxes, 0)
    scores = jnp.where(where, scores, 0).astype(accumulation_dtype(boxes, scores))
    if not scores.size:
        return scores
    return _soften(boxes, scores, where, method, iou_threshold, sigma)


# Compiled once: a loop that is called eagerly is compiled anew at every call.
@functools.partial(jax.jit, static_argnames="method")
def _soften(boxes, scores, remaining, method, iou_threshold, sigma):
    """Takes the best of the remaining boxes out, as often as there are boxes."""

    def step(carry, _):
        scores, remaining = carry
        best = jnp.argmax(jnp.where(remaining, scores, -jnp.inf))
        remaining = remaining & (jnp.arange(scores.size) != best)
        iou = box_iou(boxes[best][None], boxes)[0]
        if method == "gaussian":
            factor = jnp.exp(-(iou**2) / sigma)
        else:
            factor = jnp.where(iou > iou_threshold, 1 - iou, 1)
        return (jnp.where(remaining, scores * factor, scores), remaining), None

    return lax.scan(step, (scores, remaining), length=scores.size)[0][0]


def matrix_nms(
    regions: Bool[Array, "n h w"] | Float[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Integer[Array, " n"],
    *,
    method: str = "gaussian",
    sigma: float = 2.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, " n"]:
    """Scores lowered by overlap, all at once: `s_j · min_i f(IoU_ij) / f(max_k IoU_ki)`.

    `i` runs over the masks or boxes before `j` (a higher score, or the same and a smaller index)
    of the same class, `k` over those before `i`; so an `i` that is itself lowered counts for less.
    `f(x) = exp(−σx²)` ("gaussian") or `1 − x` ("linear").

    Args:
      regions: masks `[n, h, w]`, boolean, or boxes `[n, 4]`, xyxy in pixels.
      scores: `[n]`.
      classes: integers `[n]`.
      method: "gaussian" or "linear".
      sigma: positive, for "gaussian".
      where: broadcasts to `[n]`; False for padding.

    Returns:
      `[n]`, at least float32: the new scores; 0 where `where` is False.

    Raises:
      ValueError: if the shapes do not fit together, `method` is unknown or `sigma` not positive.
      TypeError: if masks or `where` are not boolean.

    Example:
      >>> masks = jnp.array([[[True, True, True, True]], [[True, True, False, False]]])
      >>> matrix_nms(masks, jnp.array([0.8, 0.6]), jnp.zeros(2, int), method="linear")
      Array([0.8, 0.3], dtype=float32)

    References:
      Wang et al., "SOLOv2: dynamic and fast instance segmentation", 2020, section 3.3.
    """
    _check_options(method, sigma)
    _check_row("scores", scores, regions)
    _check_row("classes", classes, regions)
    where = broadcast_where(where, scores.shape)
    scores = jnp.where(where, scores, 0).astype(accumulation_dtype(scores))
    place = jnp.zeros(scores.size, int).at[_falling(scores)].set(jnp.arange(scores.size))
    before = (place[:, None] < place) & (classes[:, None] == classes) & where[:, None]
    if regions.ndim == 2:
        boxes = jnp.where(where[:, None], regions, 0)
        iou = box_iou(boxes, boxes)
    else:
        iou = mask_iou(regions, regions)
    iou = jnp.where(before, iou, 0)
    most = jnp.max(iou, axis=0, initial=0)[:, None]
    if method == "gaussian":
        factor = jnp.exp(sigma * (most**2 - iou**2))
    else:
        # A copy of a mask before it says nothing that the other has not said.
        factor = safe_divide(1 - iou, 1 - most, default=1.0)
    return scores * jnp.min(factor, axis=0, where=before, initial=1)


class _Boxes(NamedTuple):
    """Boxes in the order in which they suppress; a coordinate to an array, as processors like it.

    With classes, all of the first one come first.
    """

    x0: Float[jax.Array, "*n"]
    y0: Float[jax.Array, "*n"]
    x1: Float[jax.Array, "*n"]
    y1: Float[jax.Array, "*n"]
    area: Float[jax.Array, "*n"]
    classes: Int[jax.Array, "*n"] | None


def _greedy(boxes, scores, classes, iou_threshold, where):
    """Sorts, lets the boxes suppress one another, and puts the answers back in place."""
    _check_row("scores", scores, boxes)
    alive = broadcast_where(where, scores.shape)
    if not alive.size:
        return alive
    boxes, scores = lax.stop_gradient((jnp.asarray(boxes), jnp.asarray(scores)))
    order = _falling(scores)
    if classes is not None:
        order = order[stable_argsort(classes[order])]
        classes = classes[order]
    boxes = boxes.astype(accumulation_dtype(boxes))[order]
    threshold = jnp.asarray(iou_threshold, boxes.dtype)
    area, (x0, y0, x1, y1) = box_area(boxes), boxes.T
    alive = _suppress(_Boxes(x0, y0, x1, y1, area, classes), alive[order], threshold)
    return jnp.zeros_like(alive).at[order].set(alive, unique_indices=True)


def _falling(scores: Float[jax.Array, " n"]) -> Int[jax.Array, " n"]:
    """The order of falling scores, equal ones as they stand."""
    return stable_argsort(-scores.astype(accumulation_dtype(scores)))


# Compiled once: a loop that is called eagerly is compiled anew at every call.
@jax.jit
def _suppress(
    boxes: _Boxes, alive: Bool[jax.Array, " n"], threshold: Float[jax.Array, ""]
) -> Bool[jax.Array, " n"]:
    """Which boxes are still alive in the end."""
    return lax.platform_dependent(
        boxes, alive, threshold, cpu=_suppress_by_rows, default=_suppress_by_tiles
    )


def _overlap(a: _Boxes, b: _Boxes, threshold: Float[jax.Array, ""]) -> Bool[jax.Array, "..."]:
    """Whether one of `a` and `b` suppresses the other."""
    width = jnp.minimum(a.x1, b.x1) - jnp.maximum(a.x0, b.x0)
    height = jnp.minimum(a.y1, b.y1) - jnp.maximum(a.y0, b.y0)
    intersection = jnp.maximum(width, 0) * jnp.maximum(height, 0)
    # Two boxes of area 0 have the IoU NaN, which is not above the threshold.
    above = intersection / (a.area + b.area - intersection) > threshold
    return above if a.classes is None else above & (a.classes == b.classes)


# Under `vmap` a branch is taken for all images if for one; so one image after the other.
@sequential_vmap
def _suppress_by_rows(boxes, alive, threshold):
    """Box by box: one that is still alive meets those after it, a dead one costs nothing."""
    size = alive.size
    chunk = min(_CHUNK, size)
    boxes, alive = _pad((boxes, alive), chunk)

    def meet_others(i, alive):
        box = jax.tree.map(lambda values: values[i], boxes)

        def any_left(state):
            start, _ = state
            if box.classes is None:
                return start < size
            return (start < size) & (boxes.classes[start] <= box.classes)

        def meet_chunk(state):
            start, alive = state
            others, kept = _cut((boxes, alive), start, chunk)
            after = start + jnp.arange(chunk) > i
            kept &= ~(_overlap(box, others, threshold) & after)
            return start + chunk, lax.dynamic_update_slice_in_dim(alive, kept, start, axis=0)

        return lax.while_loop(any_left, meet_chunk, (i // chunk * chunk, alive))[1]

    def step(i, alive):
        return lax.cond(alive[i], meet_others, lambda i, alive: alive, i, alive)

    return lax.fori_loop(0, size, step, alive)[:size]


def _suppress_by_tiles(boxes, alive, threshold):
    """Tile by tile: first the boxes of a tile among themselves, then what they do to all others."""
    size = alive.size
    tile = min(_TILE, size)
    boxes, alive = _pad((boxes, alive), tile)
    places = jnp.arange(alive.size)

    def step(t, alive):
        rows, place, start = _cut((boxes, places, alive), t * tile, tile)
        rows = jax.tree.map(lambda values: values[:, None], rows)
        overlap = _overlap(rows, boxes, threshold) & (place[:, None] < places)
        inside = lax.dynamic_slice_in_dim(overlap, t * tile, tile, axis=1)

        # A box is settled one round after the last of those that overlap it and come before it.
        def settle(state):
            kept, _ = state
            new = start & ~jnp.any(inside & kept[:, None], axis=0)
            return new, jnp.any(new != kept)

        kept, _ = lax.while_loop(lambda state: state[1], settle, (start, jnp.any(start)))
        return alive & ~jnp.any(overlap & kept[:, None], axis=0)

    return lax.fori_loop(0, alive.size // tile, step, alive)[:size]


def _pad(arrays: Any, block: int) -> Any:
    """Zeros after each array, up to whole blocks."""
    return jax.tree.map(lambda values: jnp.pad(values, (0, -values.size % block)), arrays)


def _cut(arrays: Any, start: Any, size: int) -> Any:
    return jax.tree.map(lambda values: lax.dynamic_slice_in_dim(values, start, size), arrays)


def _check_row(name: str, values: Array, objects: Array) -> None:
    if values.shape != objects.shape[:1]:
        raise ValueError(
            f"{name} has shape {values.shape}; due is one number for each of "
            f"{objects.shape[0]} objects"
        )


def _check_options(method: str, sigma: float) -> None:
    if method not in ("gaussian", "linear"):
        raise ValueError(f'method is {method!r}; due is "gaussian" or "linear"')
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}; due is a positive number")
