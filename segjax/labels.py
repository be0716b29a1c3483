"""Labels: integers of 0..c−1, and void."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int32, Integer

from segjax.numerics import broadcast_where
from segjax.typing import Array


def valid_labels(
    labels: Integer[Array, "*b"],
    num_classes: int,
    *,
    where: Bool[Array, "..."] | None = None,
    name: str = "labels",
) -> tuple[Int32[jax.Array, "*b"], Bool[jax.Array, "*b"]]:
    """Which labels count, and labels that all can be looked up.

    The one rule of every loss and metric: a label counts where `where` is True and it is in 0..c−1.
    So −1, 255 and whatever else a data set writes for void is void.

    Args:
      labels: integers `[*b]`, any shape. On the host they may have 64 bits (but `jax.jit` cuts
        those of its arguments to 32).
      num_classes: c, static.
      where: broadcasts to `[*b]`; False for void, whose labels may be anything.
      name: of `labels` in errors.

    Returns:
      The labels, 0 where void; and booleans, False where void. Both `[*b]`.

    Raises:
      ValueError: if `where` does not broadcast to `labels`.
      TypeError: if `labels` is not integer, or `where` not boolean.

    Example:
      >>> valid_labels(jnp.array([1, -1, 255]), 3)
      (Array([1, 0, 0], dtype=int32), Array([ True, False, False], dtype=bool))
    """
    labels = as_int32(labels, name=name)
    inside = labels.astype(jnp.uint32) < num_classes  # numbers below 0 become too large ones
    valid = inside if where is None else broadcast_where(where, labels.shape) & inside
    return jnp.where(valid, labels, 0), valid


def as_int32(labels: Integer[Array, "*b"], *, name: str = "labels") -> Int32[jax.Array, "*b"]:
    """The labels in 32 bits: those that do not fit become −1 or the greatest, and never another's.

    Args:
      labels: integers `[*b]`, any shape.
      name: of `labels` in errors.

    Returns:
      int32 `[*b]`.

    Raises:
      TypeError: if `labels` is not integer.

    Example:
      >>> as_int32(np.array([7, 2**32 + 7]))
      Array([         7, 2147483647], dtype=int32)
    """
    check_integer(labels, name=name)
    if labels.dtype.itemsize > 4:
        lowest = max(np.iinfo(labels.dtype).min, -1)
        labels = labels.clip(lowest, np.iinfo(np.int32).max)
    return jnp.asarray(labels, jnp.int32)


def check_integer(labels: Array, *, name: str = "labels") -> None:
    """A TypeError where the labels are no integers.

    Args:
      labels: any shape.
      name: of `labels` in the error.

    Example:
      >>> check_integer(np.zeros(3, np.uint8))
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name}: expected integers, got {labels.dtype}")
