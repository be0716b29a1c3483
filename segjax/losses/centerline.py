"""Overlap of centre lines, for thin structures: vessels, roads, cracks."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array


def soft_skeleton(probs: Float[Array, "*b h w"], *, iterations: int) -> Float[jax.Array, "*b h w"]:
    """The centre lines of a soft mask: at each width, what opening it would take away.

    `S = 1 − Π_k (1 − D_k)` with `D_k = I_k − open(I_k)`, where `I_k` is the mask eroded `k` times.
    Erosion takes the least of a pixel and its 4 neighbours, dilation the greatest of a pixel and
    its 8, opening is the one after the other. Pixels outside of the picture do not count.

    Args:
      probs: `[*b, h, w]`, in 0..1.
      iterations: how often to erode; not less than half the width of the widest structure.

    Returns:
      `[*b, h, w]` in 0..1, at least float32. Where neighbours are equal, they share the gradient.

    Raises:
      ValueError: if `probs` has fewer than 2 axes or `iterations` is negative.

    Example:
      >>> bar = jnp.zeros((5, 6)).at[1:4, :].set(1)
      >>> soft_skeleton(bar, iterations=1)[:, 2]
      Array([0., 0., 1., 0., 0.], dtype=float32)

    Source: Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
      segmentation", 2021, algorithm 1.
    """
    if probs.ndim < 2:
        raise ValueError(f"probs has shape {probs.shape}; due is [*b, h, w]")
    if iterations < 0:
        raise ValueError(f"iterations is {iterations}; due is 0 or more")

    def step(state, _):
        image, skeleton = state
        eroded = _erode(image)
        ridge = jax.nn.relu(image - _dilate(eroded))
        return (eroded, skeleton + (1 - skeleton) * ridge), None

    image = jnp.asarray(probs, accumulation_dtype(probs))
    state = image, jnp.zeros_like(image)
    (_, skeleton), _ = jax.lax.scan(step, state, length=iterations + 1)
    return skeleton


def cldice_loss(
    probs: Float[Array, "*b h w"],
    targets: Num[Array, "*b h w"] | Bool[Array, "*b h w"],
    *,
    iterations: int = 3,
    smooth: float = 0.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """One minus the centre-line Dice: `1 − 2PS / (P + S)`.

    `P = (Σ S_p y + s) / (Σ S_p + s)` is the share of the predicted centre line inside the true
    mask, `S = (Σ S_y p + s) / (Σ S_y + s)` the share of the true one inside the predicted mask,
    and `S_p`, `S_y` are the soft skeletons.

    Args:
      probs: `[*b, h, w]`, in 0..1.
      targets: `[*b, h, w]`, in 0..1 or boolean.
      iterations: of `soft_skeleton`; not less than half the width of the widest structure.
      smooth: `s`, in pixels.
      where: broadcasts to `probs`; False for void pixels: they are background in both masks.

    Returns:
      `[*b]`, in 0..1, one number per mask, at least float32; 0 with gradient 0 where prediction and
      target are both empty.

    Raises:
      ValueError: if the shapes do not fit together or `iterations` is negative.
      TypeError: if `where` is not boolean.

    Example:
      >>> road = jnp.zeros((5, 6)).at[1:4, :].set(1)
      >>> float(cldice_loss(road.at[:, 3:].set(0), road))  # half of it is missing
      0.3333333134651184

    Source: Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
      segmentation", 2021, equations 1 to 3.
    """
    if probs.shape != targets.shape:
        raise ValueError(f"targets has shape {targets.shape}; due is that of probs, {probs.shape}")
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, x.astype(dtype), 0) for x in (probs, targets))

    def share(skeleton, mask):
        inside, total = (jnp.sum(x, axis=(-2, -1)) for x in (skeleton * mask, skeleton))
        return safe_divide(inside + smooth, total + smooth, default=1.0)

    precision = share(soft_skeleton(p, iterations=iterations), y)
    sensitivity = share(soft_skeleton(y, iterations=iterations), p)
    # MONAI adds 1e-4 to this denominator as well; then even a perfect match has a loss.
    return 1 - safe_divide(2 * precision * sensitivity, precision + sensitivity)


# Shifted extrema rather than reduce_window: so equal neighbours share the gradient.
def _erode(image: Float[jax.Array, "*b h w"]) -> Float[jax.Array, "*b h w"]:
    """The minimum over a pixel and its 4 neighbours."""
    return jnp.minimum(_of_three(jnp.minimum, image, -2), _of_three(jnp.minimum, image, -1))


def _dilate(image: Float[jax.Array, "*b h w"]) -> Float[jax.Array, "*b h w"]:
    """The maximum over a pixel and its 8 neighbours."""
    return _of_three(jnp.maximum, _of_three(jnp.maximum, image, -2), -1)


def _of_three(extremum, image: jax.Array, axis: int) -> jax.Array:
    """The extremum of every pixel and the two beside it along an axis; at an end, of one."""
    part = functools.partial(jax.lax.slice_in_dim, image, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, -1)], axis)
    after = jnp.concatenate([part(1, None), part(-1, None)], axis)
    return extremum(image, extremum(before, after))
