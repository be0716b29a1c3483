"""Surface distances between masks, in images and volumes."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.numerics import broadcast_where, safe_divide
from segjax.ops.distance import distance_transform
from segjax.typing import Array


def hausdorff_distance(
    predictions: Bool[Array, "*b h w"],
    targets: Bool[Array, "*b h w"],
    *,
    percentile: float = 95.0,
    spacing: tuple[float, ...] = (1.0, 1.0),
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Hausdorff distance of two masks: `max(q_{p ∈ ∂P} d(p, ∂Y), q_{y ∈ ∂Y} d(y, ∂P))`.

    `q` is a percentile, the maximum at 100. The surface `∂` of a mask is the set of its
    pixels with a 4-neighbour (6 in volumes) outside the mask or outside the image.

    Args:
      predictions: `[*b, h, w]`, or with three spacings `[*b, d, h, w]`, boolean.
      targets: The same shape, boolean.
      percentile: Percentile in 0..100 of the distances in each direction, interpolated linearly.
      spacing: Distance between neighbouring (rows, columns) or (slices, rows, columns), positive.
      where: Broadcasts to the masks; False for void pixels, which do not count and have no surface.

    Returns:
      float32 `[*b]`, in units of `spacing`: 0 where both masks are empty, and the length of the
      image's diagonal where only one is.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of its range.
      TypeError: If a mask or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> dot = jnp.zeros((5, 6), bool).at[1, 1].set(True)
      >>> float(metrics.hausdorff_distance(jnp.roll(dot, 2, axis=1), dot))
      2.0

    References:
      Huttenlocher et al., "Comparing images using the Hausdorff distance", 1993; surfaces
      and percentile as in MONAI's `compute_hausdorff_distance`.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile: expected a number in 0..100, got {percentile}")
    p, y = _surfaces(predictions, targets, where, spacing)
    to_p, to_y = (distance_transform(~surface, spacing=spacing) for surface in (p, y))
    flat = (*targets.shape[: -len(spacing)], -1)
    to_p, to_y, on_p, on_y = (x.reshape(flat) for x in (to_p, to_y, p, y))
    apart = jnp.maximum(_percentile(to_y, on_p, percentile), _percentile(to_p, on_y, percentile))
    return _unless_empty(apart, p, y, spacing)


def normalized_surface_distance(
    predictions: Bool[Array, "*b h w"],
    targets: Bool[Array, "*b h w"],
    *,
    tolerance: float,
    spacing: tuple[float, ...] = (1.0, 1.0),
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Normalized surface distance (surface Dice): the fraction of surfaces within `τ` of the other.

    `(|{p ∈ ∂P: d(p, ∂Y) ≤ τ}| + |{y ∈ ∂Y: d(y, ∂P) ≤ τ}|) / (|∂P| + |∂Y|)`, with the
    surfaces of `hausdorff_distance`.

    Args:
      predictions: `[*b, h, w]`, or with three spacings `[*b, d, h, w]`, boolean.
      targets: The same shape, boolean.
      tolerance: `τ` in units of `spacing`, at least 0.
      spacing: Distance between neighbouring (rows, columns) or (slices, rows, columns), positive.
      where: Broadcasts to the masks; False for void pixels, which do not count and have no surface.

    Returns:
      float32 `[*b]`, in 0..1; 1 where both masks are empty, 0 where only one is.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of its range.
      TypeError: If a mask or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> dot = jnp.zeros((5, 6), bool).at[1, 1].set(True)
      >>> moved = jnp.roll(dot, 2, axis=1)
      >>> float(metrics.normalized_surface_distance(moved, dot, tolerance=2.0))
      1.0

    References:
      Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and
      neck anatomy for radiotherapy", 2018, section 2.
    """
    # The authors weigh surface pixels by the length of the contour through them; this counts them,
    # as MONAI does by default.
    if tolerance < 0:
        raise ValueError(f"tolerance: expected at least 0, got {tolerance}")
    p, y = _surfaces(predictions, targets, where, spacing)
    to_p, to_y = (distance_transform(~surface, spacing=spacing) <= tolerance for surface in (p, y))
    axes = tuple(range(-len(spacing), 0))
    both = jnp.any(p, axes) & jnp.any(y, axes)
    near = jnp.where(both, _count(p & to_y, axes) + _count(y & to_p, axes), 0)
    return safe_divide(near, _count(p, axes) + _count(y, axes), default=1.0)


def average_surface_distance(
    predictions: Bool[Array, "*b h w"],
    targets: Bool[Array, "*b h w"],
    *,
    symmetric: bool = True,
    spacing: tuple[float, ...] = (1.0, 1.0),
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Average surface distance of two masks.

    `(Σ_{p ∈ ∂P} d(p, ∂Y) + Σ_{y ∈ ∂Y} d(y, ∂P)) / (|∂P| + |∂Y|)`, with the surfaces
    of `hausdorff_distance`; if not symmetric, `Σ_{p ∈ ∂P} d(p, ∂Y) / |∂P|`.

    Args:
      predictions: `[*b, h, w]`, or with three spacings `[*b, d, h, w]`, boolean.
      targets: The same shape, boolean.
      symmetric: Whether to include the distances from the surface of `targets` to the other.
      spacing: Distance between neighbouring (rows, columns) or (slices, rows, columns), positive.
      where: Broadcasts to the masks; False for void pixels, which do not count and have no surface.

    Returns:
      float32 `[*b]`, in units of `spacing`: 0 where both masks are empty, and the length of the
      image's diagonal where only one is.

    Raises:
      ValueError: If the shapes do not fit together, or `spacing` is not positive.
      TypeError: If a mask or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> dot = jnp.zeros((5, 6), bool).at[1, 1].set(True)
      >>> float(metrics.average_surface_distance(jnp.roll(dot, 2, axis=1), dot))
      2.0

    References:
      Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT
      datasets", 2009, section II.E.
    """
    p, y = _surfaces(predictions, targets, where, spacing)
    to_p, to_y = (distance_transform(~surface, spacing=spacing) for surface in (p, y))
    axes = tuple(range(-len(spacing), 0))
    total, number = jnp.sum(jnp.where(p, to_y, 0), axes), _count(p, axes)
    if symmetric:
        total, number = total + jnp.sum(jnp.where(y, to_p, 0), axes), number + _count(y, axes)
    return _unless_empty(safe_divide(total, number), p, y, spacing)


def _surfaces(
    predictions: Array, targets: Array, where: Array | None, spacing: tuple[float, ...]
) -> list[jax.Array]:
    """Surface of both masks: pixels with a neighbour outside along an axis that has a spacing."""
    if targets.ndim < len(spacing):
        raise ValueError(
            f"targets: expected at least {len(spacing)} axes, as many as spacings, got shape "
            f"{targets.shape}"
        )
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions: expected the shape of targets, {targets.shape}, got {predictions.shape}"
        )
    valid = broadcast_where(where, targets.shape)
    surfaces = []
    for name, mask in (("predictions", predictions), ("targets", targets)):
        if mask.dtype != bool:
            raise TypeError(f"{name}: expected bool, got {mask.dtype}")
        inside = inner = jnp.asarray(mask) | ~valid  # void has no surface
        for axis in range(inside.ndim - len(spacing), inside.ndim):
            margins = [(int(a == axis),) * 2 for a in range(inside.ndim)]
            padded = jnp.pad(inside, margins)
            for start in (0, 2):
                inner &= jax.lax.slice_in_dim(padded, start, start + mask.shape[axis], axis=axis)
        surfaces.append(inside & valid & ~inner)
    return surfaces


def _unless_empty(
    distance: jax.Array, p: jax.Array, y: jax.Array, spacing: tuple[float, ...]
) -> jax.Array:
    """The distance if both surfaces exist, 0 if neither does, else the diagonal."""
    axes = tuple(range(-len(spacing), 0))
    has_p, has_y = jnp.any(p, axes), jnp.any(y, axes)
    diagonal = math.hypot(*(step * y.shape[axis] for step, axis in zip(spacing, axes, strict=True)))
    return jnp.where(has_p & has_y, distance, jnp.where(has_p | has_y, diagonal, 0.0))


def _percentile(values: jax.Array, chosen: jax.Array, percentile: float) -> jax.Array:
    """A percentile of the chosen values, interpolated linearly, `[*b]` from `[*b, p]`."""
    ordered = jnp.sort(jnp.where(chosen, values, jnp.inf), axis=-1)
    last = jnp.maximum(_count(chosen, (-1,)) - 1, 0)
    place = last * (percentile / 100)
    below = jnp.floor(place).astype(int)
    at = lambda index: jnp.take_along_axis(ordered, index[..., None], axis=-1)[..., 0]
    low, high = at(below), at(jnp.minimum(below + 1, last.astype(int)))
    low, high = (jnp.where(jnp.isfinite(value), value, 0) for value in (low, high))
    return low + (place - below) * (high - low)


def _count(mask: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The pixels of each mask, as float32: exact up to 2²⁴."""
    return jnp.sum(mask, axis=axes, dtype=jnp.float32)
