"""Non-maximum suppression (NMS) of overlapping detections: greedy, soft and matrix NMS."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, Int, Integer

from segjax.mapping import stable_argsort
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.ops.boxes import box_area, check_boxes
from segjax.ops.masks import check_masks, mask_iou
from segjax.ops.overlap import box_iou
from segjax.typing import Array

# Boxes that are compared at once on a CPU, and size of a tile on accelerators.
_CHUNK = 512
_TILE = 256


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    *,
    iou_threshold: float,
    where: Bool[Array, "..."] | None = None,
) -> Bool[jax.Array, " n"]:
    """Non-maximum suppression: keeps a box unless a better kept one has `IoU > iou_threshold`.

    Better means a higher score, or the same score and a smaller index. The result has no gradient.

    Args:
      boxes: `[n, 4]`, xyxy in pixels; a box of area 0 overlaps no other.
      scores: `[n]`.
      iou_threshold: In 0..1; boxes with a greater IoU are suppressed.
      where: Broadcasts to `[n]`; False for padding, which is not kept and suppresses nothing.

    Returns:
      Booleans `[n]`, True for the boxes to keep.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0], [8.0, 8.0, 9.0, 9.0]])
      >>> ops.nms(boxes, jnp.array([0.6, 0.9, 0.1]), iou_threshold=0.5)
      Array([False,  True,  True], dtype=bool)

    References:
      Felzenszwalb et al., "Object detection with discriminatively trained part based models",
      2010, section 7.2; ties and the strict inequality as in torchvision.
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
    """Non-maximum suppression for each class separately.

    Args:
      boxes: `[n, 4]`, xyxy in pixels.
      scores: `[n]`.
      classes: integers `[n]`, classes or other groups, such as levels of a pyramid.
      iou_threshold: In 0..1; boxes of the same class with a greater IoU are suppressed.
      where: Broadcasts to `[n]`; False for padding, which is not kept and suppresses nothing.

    Returns:
      Booleans `[n]`, True for the boxes to keep.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0]])
      >>> scores, classes = jnp.array([0.9, 0.8, 0.7]), jnp.array([0, 1, 1])
      >>> ops.batched_nms(boxes, scores, classes, iou_threshold=0.5)
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
    """Soft-NMS: lowers the scores of boxes that overlap better ones, instead of removing them.

    Repeatedly the best remaining box is taken, and lowers the scores of the others by
    `s_i ← s_i · exp(−IoU²/σ)` ("gaussian"), or by `s_i · (1 − IoU)` where `IoU > iou_threshold`
    ("linear"). Differentiable in `boxes` and `scores`, with the order as a constant.

    Args:
      boxes: `[n, 4]`, xyxy in pixels.
      scores: `[n]`, at least 0; ties go to the smallest index.
      method: "gaussian" or "linear".
      iou_threshold: IoU above which "linear" lowers scores, in 0..1.
      sigma: `σ` of "gaussian", positive.
      where: Broadcasts to `[n]`; False for padding.

    Returns:
      New scores `[n]`, at least float32; 0 where `where` is False.

    Raises:
      ValueError: If the shapes do not fit together, `method` is unknown or `sigma` not positive.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])
      >>> ops.soft_nms(boxes, jnp.array([0.8, 0.6]), method="linear")
      Array([0.8, 0.3], dtype=float32)

    References:
      Bodla et al., "Soft-NMS: improving object detection with one line of code", 2017,
      section 3.
    """
    _check_options(method, sigma)
    check_boxes("boxes", boxes)
    _check_row("scores", scores, boxes)
    where = broadcast_where(where, scores.shape)
    boxes = jnp.where(where[:, None], boxes, 0)
    scores = jnp.where(where, scores, 0).astype(accumulation_dtype(boxes, scores))
    if not scores.size:
        return scores
    return _soften(boxes, scores, where, method, iou_threshold, sigma)


# Jitted, as a loop that is called eagerly is compiled at every call.
@functools.partial(jax.jit, static_argnames="method")
def _soften(boxes, scores, remaining, method, iou_threshold, sigma):
    """Takes the best of the remaining boxes, as often as there are boxes."""

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
    """Matrix NMS: lowers all scores at once, by `s_j · min_i f(IoU_ij) / f(max_k IoU_ki)`.

    `i` runs over the masks or boxes of the same class that are better than `j` (a higher score, or
    the same and a smaller index), `k` over those better than `i`; so an `i` that is lowered itself
    counts for less. `f(x) = exp(−σx²)` ("gaussian") or `1 − x` ("linear").

    Args:
      regions: boolean masks `[n, h, w]`, or boxes `[n, 4]`, xyxy in pixels.
      scores: `[n]`.
      classes: integers `[n]`.
      method: "gaussian" or "linear".
      sigma: `σ` of "gaussian", positive.
      where: Broadcasts to `[n]`; False for padding.

    Returns:
      New scores `[n]`, at least float32; 0 where `where` is False.

    Raises:
      ValueError: If the shapes do not fit together, `method` is unknown or `sigma` not positive.
      TypeError: If masks or `where` are not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> masks = jnp.array([[[True, True, True, True]], [[True, True, False, False]]])
      >>> ops.matrix_nms(masks, jnp.array([0.8, 0.6]), jnp.zeros(2, int), method="linear")
      Array([0.8, 0.3], dtype=float32)

    References:
      Wang et al., "SOLOv2: dynamic and fast instance segmentation", 2020, section 3.3.
    """
    _check_options(method, sigma)
    check = check_boxes if regions.ndim == 2 else check_masks
    check("regions", regions)
    _check_row("scores", scores, regions)
    _check_row("classes", classes, regions)
    where = broadcast_where(where, scores.shape)
    scores = jnp.where(where, scores, 0).astype(accumulation_dtype(scores))
    place = jnp.zeros(scores.size, int).at[_descending(scores)].set(jnp.arange(scores.size))
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
        # A copy of a better mask has no effect beyond that of the other.
        factor = safe_divide(1 - iou, 1 - most, default=1.0)
    return scores * jnp.min(factor, axis=0, where=before, initial=1)


class _Boxes(NamedTuple):
    """Boxes in descending order of scores, with one array for each coordinate.

    With classes, boxes are sorted by class first.
    """

    x0: Float[jax.Array, "*n"]
    y0: Float[jax.Array, "*n"]
    x1: Float[jax.Array, "*n"]
    y1: Float[jax.Array, "*n"]
    area: Float[jax.Array, "*n"]
    classes: Int[jax.Array, "*n"] | None


def _greedy(boxes, scores, classes, iou_threshold, where):
    """Sorts the boxes, suppresses, and returns the result in the original order."""
    check_boxes("boxes", boxes)
    _check_row("scores", scores, boxes)
    alive = broadcast_where(where, scores.shape)
    if not alive.size:
        return alive
    boxes, scores = lax.stop_gradient((jnp.asarray(boxes), jnp.asarray(scores)))
    order = _descending(scores)
    if classes is not None:
        order = order[stable_argsort(classes[order])]
        classes = classes[order]
    boxes = boxes.astype(accumulation_dtype(boxes))[order]
    threshold = jnp.asarray(iou_threshold, boxes.dtype)
    area, (x0, y0, x1, y1) = box_area(boxes), boxes.T
    alive = _suppress(_Boxes(x0, y0, x1, y1, area, classes), alive[order], threshold)
    return jnp.zeros_like(alive).at[order].set(alive, unique_indices=True)


def _descending(scores: Float[jax.Array, " n"]) -> Int[jax.Array, " n"]:
    """The order of descending scores; ties keep their order."""
    return stable_argsort(-scores.astype(accumulation_dtype(scores)))


# Jitted, as a loop that is called eagerly is compiled at every call.
@jax.jit
def _suppress(
    boxes: _Boxes, alive: Bool[jax.Array, " n"], threshold: Float[jax.Array, ""]
) -> Bool[jax.Array, " n"]:
    """Which boxes are kept."""
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


# Under `vmap` a branch is taken for all images if for one, so images come one after the other.
@sequential_vmap
def _suppress_by_rows(boxes, alive, threshold):
    """Box by box: each kept box suppresses later ones; suppressed boxes cost nothing."""
    size = alive.size
    chunk = min(_CHUNK, size)
    boxes, alive = _pad((boxes, alive), chunk)

    def suppress_others(i, alive):
        box = jax.tree.map(lambda values: values[i], boxes)

        def any_left(state):
            start, _ = state
            if box.classes is None:
                return start < size
            return (start < size) & (boxes.classes[start] <= box.classes)

        def suppress_chunk(state):
            start, alive = state
            others, kept = _cut((boxes, alive), start, chunk)
            after = start + jnp.arange(chunk) > i
            kept &= ~(_overlap(box, others, threshold) & after)
            return start + chunk, lax.dynamic_update_slice_in_dim(alive, kept, start, axis=0)

        return lax.while_loop(any_left, suppress_chunk, (i // chunk * chunk, alive))[1]

    def step(i, alive):
        return lax.cond(alive[i], suppress_others, lambda i, alive: alive, i, alive)

    return lax.fori_loop(0, size, step, alive)[:size]


def _suppress_by_tiles(boxes, alive, threshold):
    """Tile by tile: boxes suppress one another in a tile, and then those of all later tiles."""
    size = alive.size
    tile = min(_TILE, size)
    boxes, alive = _pad((boxes, alive), tile)
    places = jnp.arange(alive.size)

    def step(t, alive):
        rows, place, start = _cut((boxes, places, alive), t * tile, tile)
        rows = jax.tree.map(lambda values: values[:, None], rows)
        overlap = _overlap(rows, boxes, threshold) & (place[:, None] < places)
        inside = lax.dynamic_slice_in_dim(overlap, t * tile, tile, axis=1)

        # The state of a box is final one round after those of the better boxes that overlap it.
        def settle(state):
            kept, _ = state
            new = start & ~jnp.any(inside & kept[:, None], axis=0)
            return new, jnp.any(new != kept)

        kept, _ = lax.while_loop(lambda state: state[1], settle, (start, jnp.any(start)))
        return alive & ~jnp.any(overlap & kept[:, None], axis=0)

    return lax.fori_loop(0, alive.size // tile, step, alive)[:size]


def _pad(arrays: Any, block: int) -> Any:
    """Pads each array by zeros to whole blocks."""
    return jax.tree.map(lambda values: jnp.pad(values, (0, -values.size % block)), arrays)


def _cut(arrays: Any, start: Any, size: int) -> Any:
    return jax.tree.map(lambda values: lax.dynamic_slice_in_dim(values, start, size), arrays)


def _check_row(name: str, values: Array, objects: Array) -> None:
    if values.shape != objects.shape[:1]:
        raise ValueError(
            f"{name}: expected shape {objects.shape[:1]}, one for each object, got {values.shape}"
        )


def _check_options(method: str, sigma: float) -> None:
    if method not in ("gaussian", "linear"):
        raise ValueError(f'method: expected "gaussian" or "linear", got {method!r}')
    if sigma <= 0:
        raise ValueError(f"sigma: expected a positive number, got {sigma}")
