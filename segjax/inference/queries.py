"""From a set of queries, each with a class and a mask or a box, to classes and objects."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Integer

from segjax.inference.masks import Shape, check_queries, check_things, on_picture, resize_masks
from segjax.numerics import accumulation_dtype, broadcast_where, masked_sum, safe_divide
from segjax.ops.boxes import check_boxes, convert_boxes
from segjax.ops.masks import masks_to_boxes
from segjax.typing import Array, Instances

_RULES = ("mask2former", "transformers", "detr")


def semantic_segmentation(
    class_logits: Float[Array, "*b q classes"],
    mask_logits: Float[Array, "*b q h w"],
    shape: Shape,
    *,
    canvas: Shape | None = None,
    size: Shape | None = None,
) -> Float[jax.Array, "*b height width things_and_stuff"]:
    """Class scores of each pixel from queries: `Σ_q p_q(class) m_q(pixel)`.

    `p = softmax(class_logits)` without "no object", and `m = sigmoid(mask_logits)`, interpolated
    before the sigmoid. `semantic_labels` of the result are the classes. Hugging Face's models
    interpolate the sums instead: `resize(semantic_segmentation(..., canvas), shape)`.

    Args:
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      mask_logits: `[*b, q, h, w]`, at any stride.
      shape: (height, width) of the picture, in pixels.
      canvas: (height, width) of the images that the model saw, in pixels, if the picture fills only
        a part of them: masks are resized to the canvas, cropped to `size` and resized to `shape`.
        None resizes them at once.
      size: (height, width) of the picture at the top left of the canvas; None for all of it.

    Returns:
      `[*b, height, width, classes]`, in at least float32; they need not sum to 1.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> class_logits = jnp.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
      >>> mask_logits = jnp.array([[[5.0, 5.0, -5.0]], [[-5.0, -5.0, 5.0]]])
      >>> jnp.argmax(inference.semantic_segmentation(class_logits, mask_logits, (1, 3)), axis=-1)
      Array([[0, 0, 1]], dtype=int32)

    References:
      Cheng et al., "Per-pixel classification is not all you need for semantic segmentation",
      2021, section 3.4.
    """
    check_queries(class_logits, mask_logits)
    classes = _class_probs(class_logits)
    masks = jax.nn.sigmoid(resize_masks(on_picture(mask_logits, canvas=canvas, size=size), shape))
    # The default of accelerators rounds the factors to bfloat16.
    return jnp.einsum("...qc,...qhw->...hwc", classes, masks, precision=lax.Precision.HIGHEST)


def instance_segmentation(
    class_logits: Float[Array, "*b q classes"],
    mask_logits: Float[Array, "*b q h w"],
    shape: Shape,
    *,
    rule: str = "mask2former",
    things: Bool[Array, "things"] | None = None,
    max_instances: int = 100,
    score_threshold: float = 0.0,
    canvas: Shape | None = None,
    size: Shape | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Instances:
    """Objects from queries: the most probable pairs of a query and a class, with the query's mask.

    The mask is where its logit is above 0. The score is `p_q(class) · mean of sigmoid(mask_logits)
    over the mask`.

    This is the rule "mask2former", which EoMT uses too. With "transformers", masks are thresholded
    on the canvas and resized to `shape` by the nearest pixel. This is Hugging Face's rule for
    MaskFormer (`canvas=None`) and Mask2Former (`canvas=(384, 384)`), with `score_threshold=0.5`.
    "detr" differs from it in that each query has its most probable class alone, whose probability
    is the score. (Hugging Face's instances of DETR are those of `panoptic_segmentation` with all
    classes as things.)

    Args:
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      mask_logits: `[*b, q, h, w]`, at any stride.
      shape: (height, width) of the picture, in pixels.
      rule: "mask2former", "transformers" or "detr".
      things: `[classes]`, which classes are things; None for all. Pairs of other classes count
        towards `max_instances`, as in the original.
      max_instances: n; fewer if there are fewer pairs, or fewer queries for "detr".
      score_threshold: least score of a valid object.
      canvas: (height, width) of the images that the model saw, in pixels, if the picture fills only
        a part of them: masks are resized to the canvas, cropped to `size` and resized to `shape`.
        None resizes them at once.
      size: (height, width) of the picture at the top left of the canvas; None for all of it.
      where: broadcasts to `[*b, height, width]`; False for pixels that belong to no mask.

    Returns:
      The objects `[*b, n]`, by falling class probability, with masks `[*b, n, height, width]` and
      boxes around these. Objects with an empty mask, below `score_threshold` or of stuff classes
      are not valid.

    Raises:
      ValueError: if the shapes do not fit together, or an option is out of its range.
      TypeError: if `things` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> class_logits = jnp.array([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
      >>> mask_logits = jnp.array([[[5.0, 5.0, -5.0]], [[-5.0, -5.0, 5.0]]])
      >>> segment = inference.instance_segmentation
      >>> objects = segment(class_logits, mask_logits, (1, 3), max_instances=1)
      >>> objects.masks, objects.boxes
      (Array([[[ True,  True, False]]], dtype=bool), Array([[0., 0., 2., 1.]], dtype=float32))

    References:
      Cheng et al., "Masked-attention mask transformer", 2022, and Carion et al., "End-to-end
      object detection with transformers", 2020, with the authors' code.
    """
    check_queries(class_logits, mask_logits)
    if rule not in _RULES:
        raise ValueError(f"rule: expected one of {', '.join(_RULES)}, got {rule!r}")
    if max_instances < 1:
        raise ValueError(f"max_instances: expected at least 1, got {max_instances}")
    if things is None:
        things = jnp.ones(class_logits.shape[-1] - 1, bool)
    check_things(things, class_logits)

    def mask_of(logits, where):
        """The mask, and the mean probability of its pixels."""
        logits = on_picture(logits, canvas=canvas, size=size)
        if rule == "mask2former":
            logits = resize_masks(logits, shape)
        mask = logits > 0
        if rule == "mask2former":
            mask &= where
        quality = safe_divide(masked_sum(jax.nn.sigmoid(logits), where=mask), jnp.sum(mask))
        if rule != "mask2former":
            mask = resize_masks(mask, shape, method="nearest")
        return mask & where, quality

    select = functools.partial(_select, rule, max_instances)
    objects = functools.partial(_objects, select, mask_of, rule)
    signature = "(q,c),(q,h,w),(y,x)->(n),(n),(n,y,x)"
    classes, scores, masks = jnp.vectorize(objects, signature=signature)(
        _class_probs(class_logits),
        jnp.asarray(mask_logits),
        broadcast_where(where, (*class_logits.shape[:-2], *shape)),
    )
    valid = masks.any(axis=(-2, -1)) & jnp.asarray(things)[classes] & (scores >= score_threshold)
    return Instances(masks_to_boxes(masks), classes, valid, scores=scores, masks=masks)


def object_detection(
    class_logits: Float[Array, "*b q classes"],
    boxes: Float[Array, "*b q 4"],
    shape: Shape | Integer[Array, "*b 2"],
    *,
    score_threshold: float = 0.0,
) -> Instances:
    """Objects from queries with boxes: each query's most probable class and its box in pixels.

    `score = max softmax(class_logits)` over all but "no object".

    Args:
      class_logits: `[*b, q, classes + 1]`; the last is "no object".
      boxes: `[*b, q, 4]`, cxcywh as fractions of the image.
      shape: (height, width) of the image in pixels: one for all, or `[*b, 2]`.
      score_threshold: scores of valid objects must be above it.

    Returns:
      The objects `[*b, q]`, in the order of the queries.

    Raises:
      ValueError: if the shapes do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import inference
      >>> boxes = jnp.array([[0.5, 0.5, 0.5, 1.0]])
      >>> inference.object_detection(jnp.array([[9.0, 0.0, 0.0]]), boxes, (10, 20)).boxes
      Array([[ 5.,  0., 15., 10.]], dtype=float32)

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, section 4.
    """
    check_boxes("boxes", boxes)
    if boxes.shape[:-1] != class_logits.shape[:-1] or class_logits.shape[-1] < 2:
        raise ValueError(
            f"class_logits: expected shape [*b, q, classes + 1] for boxes of {boxes.shape}, got "
            f"{class_logits.shape}"
        )
    dtype = accumulation_dtype(boxes)
    sides = jnp.asarray(shape, dtype)[..., None, ::-1]
    probs = _class_probs(class_logits)
    scores, classes = probs.max(axis=-1), jnp.argmax(probs, axis=-1).astype(jnp.int32)
    corners = convert_boxes(jnp.asarray(boxes, dtype), "cxcywh", "xyxy")
    corners = corners * jnp.concatenate([sides, sides], axis=-1)
    return Instances(corners, classes, scores > score_threshold, scores=scores)


def _class_probs(class_logits: Array) -> jax.Array:
    """Class probabilities without that of "no object"."""
    return jax.nn.softmax(jnp.asarray(class_logits, accumulation_dtype(class_logits)))[..., :-1]


def _select(rule: str, most: int, probs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Probability, query and class of the `most` most probable pairs, or queries for "detr"."""
    if rule == "detr":
        scores, queries = lax.top_k(probs.max(axis=-1), min(most, len(probs)))
        return scores, queries, jnp.argmax(probs[queries], axis=-1)
    scores, pairs = lax.top_k(probs.ravel(), min(most, probs.size))
    return scores, *jnp.divmod(pairs, probs.shape[-1])


def _objects(select, mask_of, rule, probs, mask_logits, where):
    """Classes, scores and masks of one picture, one mask after the other."""
    scores, queries, classes = select(probs)
    masks, qualities = lax.map(lambda query: mask_of(mask_logits[query], where), queries)
    if rule != "detr":
        scores = scores * qualities
    return classes.astype(jnp.int32), scores, masks
