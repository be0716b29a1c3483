"""Losses that depend on the distance to boundaries, and losses of edge maps."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Num

from segjax.labels import valid_labels
from segjax.losses.pixel import softmax_cross_entropy
from segjax.numerics import (
    accumulation_dtype,
    broadcast_where,
    masked_sum,
    safe_divide,
    softplus_pair,
)
from segjax.ops.boundaries import label_edges
from segjax.ops.distance import distance_transform, signed_distance
from segjax.typing import Array

# (row, column) steps to the eight neighbours of a pixel.
_STEPS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
# Divergences below this, in nats, are rounding errors.
_MIN_DIVERGENCE = 1e-5


def boundary_loss(
    probs: Float[Array, "*b"],
    distance: Float[Array, "*b"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """Boundary loss: `p φ`, the probability of a pixel times its signed distance to the true mask.

    Args:
      probs: Any shape, in 0..1; usually masks `[*b, h, w]`.
      distance: The same shape; `ops.signed_distance` of the true masks in pixels, negative inside.
      where: Broadcasts to `probs`; False for void pixels, whose values may be anything.

    Returns:
      `probs`' shape, in the units of `distance`, at least float32; 0 where `where` is False.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses, ops
      >>> distance = ops.signed_distance(jnp.array([[True, True, False, False]]))
      >>> losses.boundary_loss(jnp.array([[1.0, 0.5, 0.5, 0.0]]), distance)
      Array([[-2. , -0.5,  0.5,  0. ]], dtype=float32)

    References:
      Kervadec et al., "Boundary loss for highly unbalanced segmentation", 2019, equation 5.
    """
    _check_shape("distance", distance, probs.shape)
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, distance)
    probs, distance = (jnp.where(valid, x.astype(dtype), 0) for x in (probs, distance))
    return probs * distance


def hausdorff_loss(
    probs: Float[Array, "*b h w"],
    targets: Num[Array, "*b h w"] | Bool[Array, "*b h w"],
    *,
    alpha: float = 2.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w"]:
    """Hausdorff distance loss by distance transforms: `(p − y)² (d_p^α + d_y^α)`.

    `d_p` and `d_y` are the distances to the boundary of the predicted mask, `p > ½`, and of the
    true one, `y > ½`, by `ops.signed_distance`. They have no gradient, and are 0 if a mask has no
    boundary because it is empty or covers everything.

    Args:
      probs: `[*b, h, w]`, in 0..1.
      targets: `[*b, h, w]`, in 0..1 or boolean.
      alpha: Exponent `α` of the distances, positive.
      where: Broadcasts to `probs`; False for void pixels, which have no loss and lie on neither
        side of a boundary.

    Returns:
      `[*b, h, w]` in pixels to the power of `alpha`, at least float32; 0 where `where` is False.

    Raises:
      ValueError: If the shapes do not fit together or `alpha` is not positive.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.hausdorff_loss(jnp.array([[1.0, 1.0, 1.0, 0.0]]), jnp.array([[1, 0, 0, 0]]))
      Array([[0., 5., 5., 0.]], dtype=float32)

    References:
      Karimi and Salcudean, "Reducing the Hausdorff distance in medical image segmentation
      with convolutional neural networks", 2019, equation 8.
    """
    _check_shape("targets", targets, probs.shape)
    if alpha <= 0:
        raise ValueError(f"alpha: expected a positive number, got {alpha}")
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, x.astype(dtype), 0) for x in (probs, targets))
    d_p, d_y = (jnp.abs(signed_distance(x > 0.5, where=valid)) for x in (p, y))
    return (p - y) ** 2 * (d_p**alpha + d_y**alpha)


def balanced_edge_cross_entropy(
    logits: Float[Array, "*b h w"],
    edges: Num[Array, "*b h w"] | Bool[Array, "*b h w"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w"]:
    """Class-balanced cross-entropy of edges: `−β y log σ(x) − (1 − β) (1 − y) log(1 − σ(x))`.

    `β = Σ(1 − y) / Σ1` is the fraction of an image's pixels that are no edges, so the few edge
    pixels weigh as much as all others together.

    Args:
      logits: Edge logits `x`, `[*b, h, w]`.
      edges: `y`, `[*b, h, w]`, boolean or in 0..1 (such as the fraction of annotators).
      where: Broadcasts to `logits`; False for void pixels, whose values may be anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 where `where` is False, and everywhere in an
      image without edges or with nothing else.

    Raises:
      ValueError: If the shapes do not fit together.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> edges = jnp.array([[True, False, False, False]])
      >>> losses.balanced_edge_cross_entropy(jnp.zeros((1, 4)), edges).round(2)
      Array([[0.52, 0.17, 0.17, 0.17]], dtype=float32)

    References:
      Xie and Tu, "Holistically-nested edge detection", 2015, equation 2.
    """
    _check_shape("edges", edges, logits.shape)
    valid = broadcast_where(where, logits.shape)
    dtype = accumulation_dtype(logits, edges)
    x, y = (jnp.where(valid, a.astype(dtype), 0) for a in (logits, edges))
    image = (-2, -1)
    non_edges = masked_sum(1 - y, axis=image, where=valid)
    beta = safe_divide(non_edges, jnp.sum(valid, axis=image))[..., None, None]
    absent, present = softplus_pair(x)
    losses = beta * y * present + (1 - beta) * (1 - y) * absent
    return jnp.where(valid, losses, 0)


def edge_weighted_cross_entropy(
    logits: Float[Array, "*b h w c"],
    labels: Integer[Array, "*b h w"],
    *,
    edge_weight: float = 10.0,
    sigma: float = 5.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w"]:
    """Cross-entropy with more weight near boundaries: `−(1 + w exp(−d² / 2σ²)) log softmax(x)_y`.

    `d` is the distance to the nearest pixel at a boundary between labels, as in `ops.label_edges`.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      edge_weight: Additional weight `w` at a boundary.
      sigma: `σ` in pixels, positive: how far from a boundary the weight extends.
      where: Broadcasts to `labels`; False for void pixels, which have no loss and cause no
        boundaries.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 where `where` is False.

    Raises:
      ValueError: If the shapes do not fit together or `sigma` is not positive.
      TypeError: If `labels` is not integer or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> labels = jnp.array([[0, 0, 0, 1]])
      >>> losses.edge_weighted_cross_entropy(jnp.zeros((1, 4, 2)), labels, sigma=1.0).round(2)
      Array([[1.63, 4.9 , 7.62, 7.62]], dtype=float32)

    References:
      Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation",
      2015, equation 2, with the distance to the nearest boundary instead of those to two cells.
    """
    _check_shape("labels", labels, logits.shape[:-1])
    if sigma <= 0:
        raise ValueError(f"sigma: expected a positive number, got {sigma}")
    labels, valid = valid_labels(labels, logits.shape[-1], where=where)
    edges = label_edges(labels, where=valid)
    distance = distance_transform(~edges)
    has_edges = jnp.any(edges, axis=(-2, -1), keepdims=True)
    nearness = jnp.where(has_edges, jnp.exp(-(distance**2) / (2 * sigma**2)), 0)
    return (1 + edge_weight * nearness) * softmax_cross_entropy(logits, labels, where=valid)


def active_boundary_loss(
    logits: Float[Array, "*b h w c"],
    labels: Integer[Array, "*b h w"],
    *,
    boundary_fraction: float = 0.01,
    max_distance: float = 20.0,
    label_smoothing: float = 0.2,
    detach_neighbors: bool = True,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w"]:
    """Active boundary loss: `min(d, D)/D · CE(softmax_j KL(P_j ‖ P), j*)` on predicted boundaries.

    `P` are the class probabilities of a pixel and `P_j` those of its 8 neighbours; `d` is the
    distance to the true boundary and `j*` the neighbour nearest to it. The loss moves the predicted
    boundary towards the true one, pixel by pixel. Predicted boundaries are the pixels that differ
    most from those below and to the right, and their neighbours. Pixels without a neighbour that is
    nearer to the true boundary have no loss.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      boundary_fraction: Fraction of the pixels of an image that are taken as predicted boundary,
        above 0 and at most 1.
      max_distance: `D` in pixels, positive: greater distances count as this one.
      label_smoothing: Label smoothing of the cross-entropy CE, in 0..1.
      detach_neighbors: Whether to stop gradients at the neighbours, so that adjacent pixels do not
        work against each other.
      where: Broadcasts to `labels`; False for void pixels, which have no loss and are no
        neighbours.

    Returns:
      `[*b, h, w]` in nats, at least float32. The authors average over the pixels with a loss above
      0.

    Raises:
      ValueError: If the shapes do not fit together or an option is out of its range.
      TypeError: If `labels` is not integer or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> logits = jnp.array([[[9.0, 0.0], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0]]])
      >>> losses.active_boundary_loss(logits, jnp.array([[0, 0, 0, 0, 1]])).round(2)
      Array([[0.24, 0.88, 0.  , 0.  , 0.  ]], dtype=float32)

    References:
      Wang et al., "Active boundary loss for semantic segmentation", 2022, section 3.
    """
    _check_shape("labels", labels, logits.shape[:-1])
    if not 0 < boundary_fraction <= 1:
        raise ValueError(f"boundary_fraction: expected a number in (0, 1], got {boundary_fraction}")
    if max_distance <= 0:
        raise ValueError(f"max_distance: expected a positive number, got {max_distance}")
    labels, valid = valid_labels(labels, logits.shape[-1], where=where)
    distance = distance_transform(~label_edges(labels, where=valid))
    paired = [valid & _shift(valid, step) for step in _STEPS]

    logits = jnp.where(valid[..., None], logits.astype(accumulation_dtype(logits)), 0)
    log_probs = jnp.moveaxis(jax.nn.log_softmax(logits), -1, 0)
    neighbors = jnp.exp(log_probs), log_probs
    if detach_neighbors:
        neighbors = jax.lax.stop_gradient(neighbors)
    divergences = [
        jnp.where(both, _divergence(neighbors, log_probs, step), 0)
        for both, step in zip(paired, _STEPS, strict=True)
    ]

    nearby = [
        jnp.where(both, _shift(distance, step), jnp.inf)
        for both, step in zip(paired, _STEPS, strict=True)
    ]
    # Index 0 is the pixel itself: no neighbour is nearer.
    nearest = jnp.argmin(jnp.stack([distance, *nearby]), axis=0)

    change = divergences[_STEPS.index((0, 1))] + divergences[_STEPS.index((1, 0))]
    on_border = _dilate(_largest(jax.lax.stop_gradient(change), boundary_fraction))
    losses = softmax_cross_entropy(
        jnp.stack(divergences, axis=-1),
        nearest - 1,
        label_smoothing=label_smoothing,
        where=valid & on_border & (nearest > 0),
    )
    return jnp.minimum(distance, max_distance) / max_distance * losses


def _divergence(
    neighbors: tuple[jax.Array, jax.Array], log_probs: jax.Array, step: tuple[int, int]
) -> Float[jax.Array, "*b h w"]:
    """`KL(P_j ‖ P)` for the neighbour `j` one step away; arrays are `[c, *b, h, w]`."""
    p, log_p = (_shift(x, step) for x in neighbors)
    return jnp.sum(p * (log_p - log_probs), axis=0)


def _largest(values: Float[jax.Array, "*b h w"], fraction: float) -> Bool[jax.Array, "*b h w"]:
    """The pixels with the largest values in each image, if these exceed rounding errors."""
    count = math.ceil(fraction * values.shape[-2] * values.shape[-1])
    top, _ = jax.lax.top_k(values.reshape(*values.shape[:-2], -1), count)
    return values >= jnp.maximum(top[..., -1], _MIN_DIVERGENCE)[..., None, None]


def _dilate(mask: Bool[jax.Array, "*b h w"]) -> Bool[jax.Array, "*b h w"]:
    return functools.reduce(jnp.logical_or, (_shift(mask, step) for step in _STEPS), mask)


def _shift(values: jax.Array, step: tuple[int, int]) -> jax.Array:
    """The value one step away from every pixel of `[..., h, w]`; 0 outside the image."""
    height, width = values.shape[-2:]
    row, column = (1 + s for s in step)
    padded = jnp.pad(values, [(0, 0)] * (values.ndim - 2) + [(1, 1), (1, 1)])
    return padded[..., row : row + height, column : column + width]


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
