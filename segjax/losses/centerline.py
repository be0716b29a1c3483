"""Losses of thin structures such as vessels, roads and cracks, by their centre lines."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.ops.morphology import soft_skeleton
from segjax.typing import Array


def cldice_loss(
    probs: Float[Array, "*b h w"],
    targets: Num[Array, "*b h w"] | Bool[Array, "*b h w"],
    *,
    iterations: int = 3,
    smooth: float = 0.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """clDice loss, one minus the Dice coefficient of centre lines: `1 − 2PS / (P + S)`.

    `P = (Σ S_p y + s) / (Σ S_p + s)` is the fraction of the predicted centre line inside the true
    mask, `S = (Σ S_y p + s) / (Σ S_y + s)` that of the true one inside the predicted mask. `S_p`
    and `S_y` are the soft skeletons (`ops.soft_skeleton`).

    Args:
      probs: `[*b, h, w]`, in 0..1.
      targets: `[*b, h, w]`, in 0..1 or boolean.
      iterations: Number of erosions; at least half the width of the widest structure in pixels.
      smooth: `s`, in pixels.
      where: Broadcasts to `probs`; False for void pixels, which are background in both masks.

    Returns:
      `[*b]`, in 0..1, one value per mask, at least float32; 0 with gradient 0 where prediction and
      target are both empty.

    Raises:
      ValueError: If the shapes do not fit together or `iterations` is negative.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> road = jnp.zeros((5, 6)).at[1:4, :].set(1)
      >>> round(float(losses.cldice_loss(road.at[:, 3:].set(0), road)), 3)  # half of it is missing
      0.333

    References:
      Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
      segmentation", 2021, equations 1 to 3.
    """
    if probs.shape != targets.shape:
        raise ValueError(
            f"targets: expected the shape of probs, {probs.shape}, got {targets.shape}"
        )
    valid = broadcast_where(where, probs.shape)
    dtype = accumulation_dtype(probs, targets)
    p, y = (jnp.where(valid, x.astype(dtype), 0) for x in (probs, targets))

    def share(skeleton, mask):
        inside, total = (jnp.sum(x, axis=(-2, -1)) for x in (skeleton * mask, skeleton))
        return safe_divide(inside + smooth, total + smooth, default=1.0)

    precision = share(soft_skeleton(p, iterations=iterations), y)
    sensitivity = share(soft_skeleton(y, iterations=iterations), p)
    # MONAI also adds 1e-4 to this denominator, so that even a perfect match has a loss.
    return 1 - safe_divide(2 * precision * sensitivity, precision + sensitivity)
