"""Arithmetic with values and gradients defined everywhere, and the one way a mean is carried."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax.typing import Array


def accumulation_dtype(*arrays: Array) -> jnp.dtype:
    """The dtype that sums, logs and divisions run in: at least float32.

    Args:
      *arrays: arrays of any shape; bf16, f16, integer and boolean ones count as float32.

    Returns:
      float32, or float64 if one of them is float64 and JAX is set to 64 bits.

    Example:
      >>> accumulation_dtype(jnp.zeros(3, jnp.bfloat16))
      dtype('float32')
    """
    dtypes = (jax.dtypes.canonicalize_dtype(a.dtype) for a in arrays)
    return jnp.result_type(jnp.float32, *(d for d in dtypes if jnp.issubdtype(d, jnp.floating)))


def safe_divide(
    numerator: Num[Array, "..."], denominator: Num[Array, "..."], *, default: float = 0.0
) -> Float[jax.Array, "..."]:
    """`numerator / denominator`, and `default` with gradient 0 where the denominator is 0.

    Args:
      numerator: any shape.
      denominator: broadcasts with it.
      default: what 0 in the denominator gives.

    Returns:
      The quotient, of the broadcast shape.

    Example:
      >>> safe_divide(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0]), default=1.0)
      Array([0.5, 1. ], dtype=float32)
    """
    dtype = accumulation_dtype(numerator, denominator)
    numerator, denominator = numerator.astype(dtype), denominator.astype(dtype)
    defined = denominator != 0
    quotient = _divide(numerator, jnp.where(defined, denominator, 1))
    return jnp.where(defined, quotient, jnp.asarray(default, dtype))


@jax.custom_jvp
def _divide(numerator, denominator):
    return numerator / denominator


@_divide.defjvp
def _(primals, tangents):
    """`d(x/y) = (dx − (x/y) dy) / y`; JAX's own rule divides by y², which underflows to 0."""
    denominator, quotient = primals[1], _divide(*primals)
    return quotient, _divide(tangents[0] - quotient * tangents[1], denominator)


def log1mexp(x: Float[Array, "..."]) -> Float[jax.Array, "..."]:
    """`log(1 − eˣ)` for `x ≤ 0`, to full precision at both ends.

    Near 0 it is `log(−expm1(x))`, further down `log1p(−eˣ)`; each loses all digits where the other
    is exact.

    Args:
      x: any shape, at most 0: the logarithm of a probability.

    Returns:
      The same shape, at least float32: the logarithm of the complementary probability. `x` above
      minus the least normal number counts as that, with gradient 0: so 0 gives −87.3 in float32.

    Example:
      >>> jnp.exp(log1mexp(jnp.log(jnp.array([0.25, 0.5]))))
      Array([0.75, 0.5 ], dtype=float32)

    References:
      Mächler, "Accurately computing log(1 − exp(−|a|))", 2012.
    """
    dtype = accumulation_dtype(x)
    x = jnp.minimum(x.astype(dtype), -jnp.finfo(dtype).tiny)
    near = x > -jnp.log(2)
    # Each formula sees only its own half: the derivative of the other may be 0/0 there.
    close = jnp.log(-jnp.expm1(jnp.where(near, x, -1)))
    far = jnp.log1p(-jnp.exp(jnp.where(near, -1, x)))
    return jnp.where(near, close, far)


@jax.custom_jvp
def softplus_pair(x: Float[Array, "*b"]) -> tuple[Float[jax.Array, "*b"], Float[jax.Array, "*b"]]:
    """`log(1 + eˣ)` and `log(1 + e⁻ˣ)`: what a logit costs if there is no target, and if there is.

    They are `max(x, 0)` and `max(−x, 0)`, each plus `log(1 + e^−|x|)`: one logarithm for both.

    Args:
      x: any shape.

    Returns:
      Both, of the same shape, at least float32.

    Example:
      >>> absent, present = softplus_pair(jnp.array([0.0, 1e4]))
      >>> present
      Array([0.6931472, 0.       ], dtype=float32)

    References:
      Bishop, "Pattern recognition and machine learning", 2006, eq. 4.90.
    """
    x = x.astype(accumulation_dtype(x))
    # log(1 + e) = 2 artanh(z) = 2 (z + z³/3 + z⁵/5 + …) with z ≤ 1/3: on a CPU many times faster
    # than log1p. Each further term has 1/9 of what is left.
    e = jnp.exp(-jnp.abs(x))
    z = e / (2 + e)
    terms = math.ceil(math.log(jnp.finfo(x.dtype).eps, 1 / 9))
    series = jnp.zeros_like(z)
    for k in reversed(range(terms)):
        series = series * jnp.square(z) + 1 / (2 * k + 1)
    shared = 2 * z * series
    return jnp.maximum(x, 0) + shared, jnp.maximum(-x, 0) + shared


@softplus_pair.defjvp
def _(primals, tangents):
    """`σ(x) dx` and `−σ(−x) dx`: smooth at 0, where the maxima are not."""
    (x,), (dx,) = primals, tangents
    pair = softplus_pair(x)
    dx = dx.astype(pair[0].dtype)
    up, down = jax.nn.sigmoid(x.astype(dx.dtype)), jax.nn.sigmoid(-x.astype(dx.dtype))
    return pair, (up * dx, -down * dx)


def broadcast_where(
    where: Bool[Array, "..."] | None, shape: Sequence[int]
) -> Bool[jax.Array, "..."]:
    """The mask of `shape` that `where` stands for: broadcast to it, and all True for None.

    Args:
      where: boolean, broadcasts to `shape`; or None.
      shape: of what is to be masked.

    Returns:
      Booleans of `shape`.

    Raises:
      ValueError: if `where` does not broadcast to `shape`.
      TypeError: if `where` is not boolean.

    Example:
      >>> broadcast_where(jnp.array([True, False]), (2, 2))
      Array([[ True, False],
             [ True, False]], dtype=bool)
    """
    if where is None:
        return jnp.ones(shape, bool)
    if where.dtype != bool:
        raise TypeError(f"where: expected bool, got {where.dtype}")
    try:
        return jnp.broadcast_to(where, shape)
    except ValueError:
        raise ValueError(
            f"where: expected a shape that broadcasts to {tuple(shape)}, got {where.shape}"
        ) from None


def masked_sum(
    values: Num[Array, "..."],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """The sum of the values that `where` keeps, in at least float32.

    Unlike `jnp.sum(values, where=where)` on values computed beforehand, a NaN under `where=False`
    reaches neither the sum nor, as long as `values` is an input, its gradient.

    Args:
      values: any shape.
      axis: as in `jnp.sum`.
      where: broadcasts to `values`; None keeps all.

    Returns:
      The sums, `values`' shape without `axis`.

    Example:
      >>> float(masked_sum(jnp.array([1.0, jnp.nan]), where=jnp.array([True, False])))
      1.0
    """
    dtype = accumulation_dtype(values)
    if where is not None:
        values = jnp.where(where, values, 0)
    return jnp.sum(values, axis=axis, dtype=dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average:
    """A mean on its way: the weighted total and the weight, divided only at the very end.

    Totals and weights of several devices, hosts or batches add up (`+`), so the mean is the same
    however the examples were dealt out. A mean of means is not.

    Attributes:
      total: the weighted sum.
      weight: the sum of the weights.

    Example:
      >>> a = Average.of(jnp.array([1.0, 3.0])) + Average.of(jnp.array([8.0]))
      >>> float(a.value)
      4.0
    """

    total: Float[Array, "..."]
    weight: Float[Array, "..."]

    @classmethod
    def of(
        cls,
        values: Num[Array, "..."],
        *,
        weights: Num[Array, "..."] | None = None,
        where: Bool[Array, "..."] | None = None,
    ) -> "Average":
        """The average of all `values`, each by its weight, over those that `where` keeps."""
        dtype = accumulation_dtype(values)
        weights = jnp.ones((), dtype) if weights is None else weights.astype(dtype)
        weights = jnp.broadcast_to(weights, values.shape)
        return cls(
            masked_sum(values.astype(dtype) * weights, where=where),
            masked_sum(
                weights, where=where if where is None else jnp.broadcast_to(where, values.shape)
            ),
        )

    @property
    def value(self) -> Float[jax.Array, "..."]:
        """The mean; 0 where there is no weight."""
        return safe_divide(self.total, self.weight)

    def __add__(self, other: "Average") -> "Average":
        return Average(self.total + other.total, self.weight + other.weight)

    def __mul__(self, factor: float) -> "Average":
        return Average(self.total * factor, self.weight)
