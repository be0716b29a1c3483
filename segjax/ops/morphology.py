"""Soft morphology: differentiable erosion, dilation and skeletons."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def soft_erode(probs: Float[Array, "*b h w"]) -> Float[jax.Array, "*b h w"]:
    """Soft erosion: the minimum of each pixel and its 4 neighbours, `min_{|q − p|₁ ≤ 1} probs_q`.

    Args:
      probs: `[*b, h, w]`.

    Returns:
      `[*b, h, w]`, at least float32. Pixels outside the image do not count; equal neighbours share
      the gradient.

    Raises:
      ValueError: If `probs` has fewer than 2 axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.soft_erode(jnp.array([[1.0, 1.0, 1.0, 0.2]]))
      Array([[1. , 1. , 0.2, 0.2]], dtype=float32)
    """
    return neighborhood(jnp.minimum, _as_image(probs), 4, outside=None)


def soft_dilate(probs: Float[Array, "*b h w"]) -> Float[jax.Array, "*b h w"]:
    """Soft dilation: the maximum of each pixel and its 8 neighbours, `max_{|q − p|_∞ ≤ 1} probs_q`.

    Args:
      probs: `[*b, h, w]`.

    Returns:
      `[*b, h, w]`, at least float32. Pixels outside the image do not count; equal neighbours share
      the gradient.

    Raises:
      ValueError: If `probs` has fewer than 2 axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.soft_dilate(jnp.array([[1.0, 0.0, 0.0, 0.2]]))
      Array([[1. , 1. , 0.2, 0.2]], dtype=float32)
    """
    return neighborhood(jnp.maximum, _as_image(probs), 8, outside=None)


def soft_skeleton(probs: Float[Array, "*b h w"], *, iterations: int) -> Float[jax.Array, "*b h w"]:
    """Soft skeleton: the centre lines of a soft mask.

    `S = 1 − Π_k (1 − D_k)`, with `D_k = I_k − dilate(erode(I_k))`, where `I_k` is the mask eroded
    `k` times: `D_k` is what an opening removes at that width.

    Args:
      probs: `[*b, h, w]`, in 0..1.
      iterations: Number of erosions; at least half the width of the widest structure in pixels.

    Returns:
      `[*b, h, w]` in 0..1, at least float32. Equal neighbours share the gradient.

    Raises:
      ValueError: If `probs` has fewer than 2 axes or `iterations` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> bar = jnp.zeros((5, 6)).at[1:4, :].set(1)
      >>> ops.soft_skeleton(bar, iterations=1)[:, 2]
      Array([0., 0., 1., 0., 0.], dtype=float32)

    References:
      Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
      segmentation", 2021, algorithm 1.
    """
    image = _as_image(probs)
    if iterations < 0:
        raise ValueError(f"iterations: expected 0 or more, got {iterations}")

    def step(state, _):
        image, skeleton = state
        eroded = soft_erode(image)
        ridge = jax.nn.relu(image - soft_dilate(eroded))
        return (eroded, skeleton + (1 - skeleton) * ridge), None

    state = image, jnp.zeros_like(image)
    (_, skeleton), _ = jax.lax.scan(step, state, length=iterations + 1)
    return skeleton


def neighborhood(
    extremum: Callable[[jax.Array, jax.Array], jax.Array],
    image: Shaped[jax.Array, "*b h w"],
    connectivity: int,
    *,
    outside: int | float | None,
) -> Shaped[jax.Array, "*b h w"]:
    """The extremum of every pixel and its 4 or 8 neighbours; `outside=None` repeats the border.

    It shifts arrays instead of using `reduce_window`, so that equal neighbours share the gradient.
    """
    along = functools.partial(_extremum_along, extremum, outside=outside)
    if connectivity == 8:
        return along(along(image, axis=-2), axis=-1)
    return extremum(along(image, axis=-2), along(image, axis=-1))


def _extremum_along(
    extremum: Callable, image: jax.Array, *, axis: int, outside: int | float | None
) -> jax.Array:
    """The extremum of every pixel and its two neighbours along one axis."""
    part = functools.partial(jax.lax.slice_in_dim, image, axis=axis)
    first, last = part(0, 1), part(-1, None)
    if outside is not None:
        first = last = jnp.full_like(first, outside)
    before = jnp.concatenate([first, part(0, -1)], axis)
    after = jnp.concatenate([part(1, None), last], axis)
    return extremum(image, extremum(before, after))


def _as_image(probs: Array) -> jax.Array:
    if probs.ndim < 2:
        raise ValueError(f"probs: expected shape [*b, h, w], got {probs.shape}")
    return jnp.asarray(probs, accumulation_dtype(probs))
