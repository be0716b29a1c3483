"""Class labels: integers in 0..c−1, and void."""

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
    """Split labels into valid ones and void.

    The rule of every loss and metric: a label is valid if it is in 0..c−1 and `where` is True. So
    −1, 255 and any other value that a dataset uses for void are void.

    Args:
      labels: integers, any shape `[*b]`. NumPy arrays may have 64 bits.
      num_classes: Number of classes c, static.
      where: Broadcasts to `[*b]`; False for void, whose labels may be anything.
      name: Name of `labels` in errors.

    Returns:
      The labels, with 0 for void; and booleans, False for void. Both `[*b]`.

    Raises:
      ValueError: If `where` does not broadcast to `labels`.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.labels import valid_labels
      >>> valid_labels(jnp.array([1, -1, 255]), 3)
      (Array([1, 0, 0], dtype=int32), Array([ True, False, False], dtype=bool))
    """
    labels = as_int32(labels, name=name)
    inside = labels.astype(jnp.uint32) < num_classes  # negative labels become too large
    valid = inside if where is None else broadcast_where(where, labels.shape) & inside
    return jnp.where(valid, labels, 0), valid


def as_int32(labels: Integer[Array, "*b"], *, name: str = "labels") -> Int32[jax.Array, "*b"]:
    """Convert labels to int32; those that do not fit become −1 or the greatest int32.

    Args:
      labels: integers, any shape `[*b]`.
      name: Name of `labels` in errors.

    Returns:
      int32 `[*b]`.

    Raises:
      TypeError: If `labels` is not integer.

    Example:
      >>> import numpy as np
      >>> from segjax.labels import as_int32
      >>> as_int32(np.array([7, 2**32 + 7]))
      Array([         7, 2147483647], dtype=int32)
    """
    check_integer(labels, name=name)
    if labels.dtype.itemsize > 4:
        lowest = max(np.iinfo(labels.dtype).min, -1)
        labels = labels.clip(lowest, np.iinfo(np.int32).max)
    return jnp.asarray(labels, jnp.int32)


def check_integer(labels: Array, *, name: str = "labels") -> None:
    """Raises a TypeError if labels are not integers.

    Args:
      labels: Any shape.
      name: Name of `labels` in the error.

    Example:
      >>> import numpy as np
      >>> from segjax.labels import check_integer
      >>> check_integer(np.zeros(3, np.uint8))
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name}: expected integers, got {labels.dtype}")
